"""Ten minutes of 720p to a shard of 150 clips of 4 s: CPU seconds, against a bare ffmpeg and against video2dataset.

    python -m benchmarks.normalise_shard [--minutes 10] [--repeats 3] [--media ../shared/media] [--video2dataset PYTHON]

ours            probe, normalise (with the detector of still pictures, in its jail), plan, cut, tar, index, checks
bare ffmpeg     one command line with the filters and the encoders of our proxy, and nothing else
video2dataset   1.3.0 cutting the same clips exactly: its ClippingSubsampler with precision "exact", which encodes at
                the source's size. It wants an environment of its own, and no other part of it works there:
                    python -m venv v2d; v2d/bin/pip install video2dataset==1.3.0 'pyarrow<17' 'numpy<2'
                --video2dataset names that environment's Python; without it this side is left out.

User and system time of the processes and their children, imports left out; the sides take turns and the least of the
repeats counts (video2dataset runs once). Our videos are shrunk and cut at key frames each second, video2dataset's keep
their size and are cut where asked: what is compared is the way to clips that a trainer can read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.talk import MEDIA, cpu_seconds, fill_root, make_proxy, make_shards, make_talk, run_ffmpeg
from ingest.ffmpeg import FFmpeg, find_ffmpeg
from ingest.normalise import NormaliseSettings, picture_coding, picture_filters, sound_coding
from ingest.probe import probe
from sayso.root import Root
from shards.settings import ShardSettings

CLIP_SECONDS = 4.0
AT_MOST, AT_LEAST = 1.1, 4.0

_VIDEO2DATASET = """
import json, resource, sys
from pathlib import Path
from video2dataset.subsamplers import ClippingSubsampler

def cpu():
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

source, clips, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
spans = [[number * seconds, (number + 1) * seconds] for number in range(clips)]
began = cpu()
cut = ClippingSubsampler(oom_clip_count=5, encode_formats={"video": "mp4"}, precision="exact")
made, _, error = cut({"video": [Path(source).read_bytes()]}, {"key": "talk", "clips": spans})
if error:
    sys.exit(error)
sizes = [len(clip) for clip in made["video"]]
print(json.dumps({"cpu": cpu() - began, "clips": len(sizes), "bytes": sum(sizes)}))
"""


def ours(source: Path, folder: Path, ffmpeg: FFmpeg) -> tuple[float, float, str]:
    """CPU seconds to the proxy and from there to the shard, and what came out."""
    folder.mkdir()
    began = cpu_seconds()
    proxy = make_proxy(source, folder / "work", NormaliseSettings(), ffmpeg)
    normalised = cpu_seconds()
    root = Root(str(folder / "root")).create()
    fill_root(root, proxy, 1, every=CLIP_SECONDS)
    plans, shards = make_shards(root, ShardSettings(min_window=CLIP_SECONDS))
    done = cpu_seconds()
    lengths = {round(sample.end - sample.start, 3) for plan in plans for sample in plan.samples}
    assert lengths == {CLIP_SECONDS}
    samples = sum(shard.samples for shard in shards)
    size = proxy.path.stat().st_size
    return normalised - began, done - normalised, f"{samples} clips; proxy of {size / 1e6:.2f} MB"


def bare(source: Path, target: Path, ffmpeg: FFmpeg) -> tuple[float, str]:
    """CPU seconds of one ffmpeg with our proxy's filters and encoders, and what came out."""
    found = probe(source, target.parent, ffmpeg)
    settings = NormaliseSettings()
    filters = {"vf": ",".join(picture_filters(found, settings))}
    options = {**filters, **picture_coding(settings), **sound_coding(settings), "movflags": "+faststart"}
    coded = [part for name, value in options.items() for part in (f"-{name}", str(value))]
    began = cpu_seconds()
    run_ffmpeg(ffmpeg, "-threads", "1", "-i", source, "-filter_threads", "1", *coded, target)
    return cpu_seconds() - began, f"a proxy of {target.stat().st_size / 1e6:.2f} MB"


def video2dataset(python: Path, source: Path, clips: int, folder: Path, ffmpeg: FFmpeg) -> tuple[float, str]:
    """CPU seconds of video2dataset's exact clipping with the same ffmpeg, and what came out."""
    folder.mkdir()
    (folder / "ffmpeg").symlink_to(ffmpeg.path)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    command: list[str | Path] = [python, "-c", _VIDEO2DATASET, source, str(clips), str(CLIP_SECONDS)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment, cwd=folder).stdout
    found = json.loads(printed.splitlines()[-1])
    return found["cpu"], f"{found['clips']} clips of {found['bytes'] / 1e6:.2f} MB"


def main() -> None:
    """Run the sides and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--video2dataset", type=Path, metavar="PYTHON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sayso-") as name:
        folder, ffmpeg = Path(name), find_ffmpeg()
        source, seconds = folder / "talk.mp4", 60 * asked.minutes
        told = make_talk(source, seconds, asked.media, ffmpeg)
        megabits = 8 * source.stat().st_size / seconds / 1e6
        print(f"{asked.minutes:g} minutes of 720p at {megabits:.2f} Mbit/s ({told}), ffmpeg {ffmpeg.version}")
        alone, whole = [], []
        for number in range(asked.repeats):
            took, made = bare(source, folder / "bare.mp4", ffmpeg)
            print(f"  bare ffmpeg    {took:6.2f} CPU-s   {made}", flush=True)
            normalised, sharded, found = ours(source, folder / f"ours-{number}", ffmpeg)
            whole.append(normalised + sharded)
            alone.append(took)
            print(f"  ours           {whole[-1]:6.2f} CPU-s   {normalised:.2f} + {sharded:.2f}; {found}", flush=True)
        print(f"ours / bare ffmpeg: {min(whole) / min(alone):.3f} (at most {AT_MOST} asked)", flush=True)
        if not asked.video2dataset:
            print("video2dataset is left out: give --video2dataset its environment's Python, see --help")
            return
        clips = int(seconds / CLIP_SECONDS)
        took, made = video2dataset(asked.video2dataset.absolute(), source, clips, folder / "v2d", ffmpeg)
        print(f"  video2dataset  {took:6.2f} CPU-s   {made}")
        print(f"video2dataset / ours: {took / min(whole):.1f} (at least {AT_LEAST:g} asked)")


if __name__ == "__main__":
    main()
