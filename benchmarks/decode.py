"""Clips decoded a CPU second: sayso against bare PyAV on the same bytes, and against an ffmpeg process a clip.

    python -m benchmarks.decode [--media ../shared/media] [--clips 60] [--rounds 3]

The videos of a folder (without one, a made minute of 720p) are normalised and cut as sayso does, 5 s a clip; of each
clip 32 frames at 10 fps become a tensor. All sides make the same pictures of the same times, which is looked at first:
    sayso            make_clip on the sample's bytes; once as bare PyAV does it, once with random crops and flips
    bare PyAV        open, seek, decode, convert whole pictures with one VideoReformatter, crop, stack
    torchcodec       make_clip with the decoder torchcodec, where that is installed
    ffmpeg a clip    a process on the ORIGINAL video: seek, decode, fps, scale, crop, raw RGB into a pipe
CPU seconds are those of the process and of its children; sides take turns, ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from ingest.ffmpeg import find_ffmpeg
from ingest.normalise import NormaliseSettings, normalise
from ingest.probe import probe
from sayso.errors import ConfigError, SaysoError
from shards.clips import ClipSettings, check_decoder, make_clip
from shards.cut import Proxy
from shards.library import RawSample

MEDIA = Path(__file__).resolve().parents[2] / "shared/media"
FRAMES, FPS, LENGTH = 32, 10.0, 5.0
BARE_AT_LEAST, PROCESS_AT_LEAST = 0.95, 5.0
SLACK = 0.001


@dataclass(frozen=True)
class Film:
    """A sample, and the video that it was made of."""

    sample: RawSample
    original: Path


Side = Callable[[Film], torch.Tensor]


def samples(folder: Path, scratch: Path, count: int) -> list[Film]:
    """Clips spread over all videos of a folder, the same each time."""
    originals = sorted(path for path in folder.glob("*") if path.suffix in {".mp4", ".mkv"})
    found = [film for original in originals or [made(scratch)] for film in _clips(original, scratch)]
    random.Random(0).shuffle(found)
    return found[:count]


def made(scratch: Path) -> Path:
    """A minute of 720p with sound."""
    path = scratch / "made.mp4"
    picture, sound = "testsrc2=size=1280x720:rate=30:duration=60", "sine=frequency=440:duration=60"
    inputs = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound]
    command = [str(find_ffmpeg().path), "-v", "error", *inputs, "-c:v", "libx264", "-preset", "veryfast"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", "-c:a", "aac", str(path)], check=True)
    return path


def _clips(original: Path, scratch: Path) -> Iterator[Film]:
    """Windows of 5 s one behind the other, each beginning somewhere in a second, as narrations do."""
    target, ffmpeg = scratch / f"{original.stem}.mp4", find_ffmpeg()
    try:
        proxy = normalise(probe(original, scratch, ffmpeg), target, NormaliseSettings(), ffmpeg)
    except SaysoError as error:
        print(f"{original.name} is left out: {error}")
        return
    draw = random.Random(original.name)
    with Proxy(target) as source:
        start = draw.random()
        while start + LENGTH < proxy.picture_seconds:
            start = round(start, 3)
            clip = source.cut(start, start + LENGTH)
            facts = {"video_id": original.stem, "start": start, "end": start + LENGTH, "clip_start": clip.start}
            said = {"candidates": [{"text": "something"}], "clip_end": clip.end}
            yield Film(RawSample(f"{original.stem}_{start}", {"mp4": clip.data}, {**facts, **said}), original)
            start += LENGTH + draw.random()


def sayso_side(settings: ClipSettings) -> Side:
    """What a loader's worker does."""
    return lambda film: make_clip(film.sample, settings, "0")["frames"]


def bare_side(settings: ClipSettings) -> Side:
    """PyAV used well by hand, with a crop in the centre."""

    def decode(film: Film) -> torch.Tensor:
        facts = film.sample.facts
        start = (facts["start"] + facts["end"] - settings.seconds) / 2 - facts["clip_start"]
        times = [start + i / FPS for i in range(FRAMES)]
        taken: list[Any] = []
        converter = VideoReformatter()
        with av.open(io.BytesIO(film.sample.members["mp4"]), "r") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            assert stream.time_base is not None
            container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                assert frame.time is not None
                # At the proxy's own rate a picture is shown until the next begins, one step later.
                if frame.time + 1 / FPS <= times[len(taken)] + SLACK:
                    continue
                scale = settings.scaled_short_side / min(frame.width, frame.height)
                width, height = 2 * round(frame.width * scale / 2), 2 * round(frame.height * scale / 2)
                rgb = converter.reformat(frame, format="rgb24", width=width, height=height, threads=1).to_ndarray()
                left, top = (width - settings.size) // 2, (height - settings.size) // 2
                taken.append(rgb[top : top + settings.size, left : left + settings.size])
                if len(taken) == FRAMES:
                    break
        return torch.from_numpy(np.stack(taken))

    return decode


def process_side(settings: ClipSettings) -> Side:
    """An ffmpeg process a clip on the original, one thread, as we run one a core."""

    def decode(film: Film) -> torch.Tensor:
        facts, side, size = film.sample.facts, settings.scaled_short_side, settings.size
        start = (facts["start"] + facts["end"] - settings.seconds) / 2
        scale = f"scale=w='if(gt(iw,ih),-2,{side})':h='if(gt(iw,ih),{side},-2)':flags=bilinear"
        command = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-threads", "1", "-ss", f"{start:.3f}"]
        chain = f"fps={FPS:g},{scale},crop={size}:{size}"
        command += ["-i", str(film.original), "-an", "-sn", "-vf", chain, "-filter_threads", "1"]
        command += ["-frames:v", str(FRAMES), "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"]
        raw = subprocess.run(command, check=True, capture_output=True).stdout
        return torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(-1, size, size, 3)

    return decode


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for, user and system."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def compare(films: list[Film], sides: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each round of each side."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = cpu_seconds()
            for film in films:
                side(film)
            took[name].append(cpu_seconds() - began)
    return took


def difference(films: list[Film], one: Side, other: Side) -> float:
    """Mean difference of pixels, of 255, of the clip in the middle.

    A crop of a scaled picture can lie up to a pixel beside the other: ours is cut before scaling, at even pixels.
    """
    return median(float((one(film).int() - other(film).int()).abs().float().mean()) for film in films[:9])


def run(films: list[Film], size: int, rounds: int) -> bool:
    """Compare all sides at one size; whether the targets were met."""
    plain = ClipSettings(frames=FRAMES, fps=FPS, size=size, crop="center", start="center", flip=False)
    bare, ours = bare_side(plain), sayso_side(plain)
    sides = {"bare PyAV": bare, "sayso": ours, "sayso, random": sayso_side(ClipSettings(size=size))}
    other = plain.model_copy(update={"decoder": "torchcodec"})
    try:
        check_decoder(other)
        sides["sayso, torchcodec"] = sayso_side(other)
    except ConfigError as error:
        print(f"torchcodec is left out: {error}")
    sides["ffmpeg a clip"] = process_side(plain)
    print(f"\n{FRAMES} frames of {size} px at {FPS:g} fps, of {len(films)} clips, {rounds} rounds")
    print(f"mean difference of pixels, of 255: bare PyAV {difference(films, ours, bare):.2f}", end="")
    print(f", an ffmpeg process (from the original) {difference(films, ours, sides['ffmpeg a clip']):.2f}")
    took = compare(films, sides, rounds)
    for name, seconds in took.items():
        print(f"{name:18} {len(films) / median(seconds):7.1f} clips a CPU second")

    def ratio(one: str, other: str) -> float:
        return median(b / a for a, b in zip(took[one], took[other], strict=True))

    met = True
    for name in (name for name in took if name.startswith("sayso")):
        to_bare, to_process = ratio(name, "bare PyAV"), ratio(name, "ffmpeg a clip")
        print(f"{name:18} {to_bare:.2f} x bare PyAV, {to_process:.1f} x an ffmpeg process a clip")
        met &= name.endswith("torchcodec") or (to_bare >= BARE_AT_LEAST and to_process >= PROCESS_AT_LEAST)
    return met


def main() -> None:
    """Make the clips, compare at the size of the proxies and below it, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)  # as in a loader's worker
    with tempfile.TemporaryDirectory() as folder:
        films = samples(asked.media, Path(folder), asked.clips)
        met = [run(films, size, asked.rounds) for size in (224, 112)]
    print(f"\nasked: at least {BARE_AT_LEAST} x bare PyAV and {PROCESS_AT_LEAST:g} x an ffmpeg process a clip")
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
