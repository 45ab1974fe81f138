"""What the benchmarks of writing work on: ten minutes of 720p, and a root whose videos are proxies of it.

The ten minutes are a real talk of ../shared/media that is played again and again (its packets copied), else a made
picture with a tone, which is said.
"""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

from ingest.ffmpeg import FFmpeg
from ingest.normalise import NormaliseSettings, Proxy, normalise
from ingest.probe import probe
from sayso.arrow import MADE_BY, MADE_FROM
from sayso.ids import narration_id
from sayso.root import Root
from sayso.rows import Media, Narration, Plan, Row, Shard, SourceFacts, Video
from shards.settings import ShardSettings
from shards.stage import MakeShards

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
_TALK = "autoeditor_example.mp4"


def cpu_seconds() -> float:
    """CPU seconds that this process and its ended children have taken."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run_ffmpeg(ffmpeg: FFmpeg, *arguments: str | Path) -> None:
    """Run ffmpeg, quietly."""
    subprocess.run([ffmpeg.path, "-nostdin", "-v", "error", "-y", *arguments], check=True)


def make_talk(target: Path, seconds: float, media: Path, ffmpeg: FFmpeg) -> str:
    """Write so many seconds of 720p as MP4; what they are, in words."""
    if (media / _TALK).is_file():
        again = ("-stream_loop", "-1", "-i", media / _TALK, "-t", str(seconds))
        run_ffmpeg(ffmpeg, *again, "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", target)
        return f"{_TALK} played again and again"
    picture = ("-f", "lavfi", "-i", f"testsrc2=size=1280x720:rate=30:duration={seconds}")
    tone = ("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={seconds}")
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "30", "-pix_fmt", "yuv420p", "-c:a", "aac")
    run_ffmpeg(ffmpeg, *picture, *tone, *coded, target)
    return f"a made picture with a tone, for want of {media / _TALK}"


def make_proxy(source: Path, folder: Path, settings: NormaliseSettings, ffmpeg: FFmpeg) -> Proxy:
    """Probe and normalise a file, as stage fetch does."""
    folder.mkdir()
    return normalise(probe(source, folder, ffmpeg), folder / "proxy.mp4", settings, ffmpeg)


def append(root: Root, rows: list[Row]) -> None:
    """Append rows of one kind."""
    root.table(type(rows[0])).append([{**row.model_dump(), MADE_BY: "benchmark", MADE_FROM: ""} for row in rows])


def fill_root(root: Root, proxy: Proxy, videos: int, *, every: float) -> None:
    """Store a proxy as so many videos, with a narration of `every` seconds after the other."""
    media: list[Row] = []
    told: list[Row] = []
    for number in range(videos):
        video = f"v{number:03}"
        stored = root.storage.put_file(proxy.path, f"media/{video}/proxy.mp4")
        facts = SourceFacts(sha256=f"{number:064x}", bytes=stored.bytes, container="mp4", duration=proxy.duration)
        shape = {"width": proxy.width, "height": proxy.height, "fps": proxy.fps, "audio": proxy.audio}
        media.append(
            Media(
                video_id=video, key=stored.key, sha256=stored.sha256, bytes=stored.bytes, duration=proxy.duration,
                source=facts, **shape,
            )
        )  # fmt: skip
        told += [_narration(video, every * place, every) for place in range(int(proxy.duration / every))]
    append(root, [Video(video_id=f"v{number:03}", url=f"file:///v{number:03}") for number in range(videos)])
    append(root, media)
    append(root, told)


def _narration(video: str, start: float, seconds: float) -> Narration:
    return Narration(
        narration_id=narration_id(video, "subtitle:en", start),
        video_id=video,
        start=start,
        end=start + seconds,
        text=f"at {start:g} seconds you take the nut and turn it to the left until it comes off",
        source="subtitle:en",
        language="en",
        kept=True,
    )


def make_shards(root: Root, settings: ShardSettings) -> tuple[list[Plan], list[Shard]]:
    """Plan an export, make its shards and publish them, with the stage that the engine runs, in this process."""
    stage = MakeShards(root, settings)
    stage.begin()
    stage.open()
    plans = list(stage.inputs(stage.input_keys().to_pylist()))
    shards = [shard for plan in plans for shard in stage(plan)]
    append(root, list(shards))
    stage.end()
    return plans, shards
