"""What the encoding of proxies costs and loses: profiles on the real videos of ../shared/media.

    python -m benchmarks.encoding [--media ../shared/media] [--files NAME...] [--profiles NAME...]

Each video is normalised as stage fetch does it. Beside it the source is decoded once more and goes through the same
frame rate and scaling without compression: PSNR and SSIM (ffmpeg's filters, brightness) are between these pictures and
the proxy's, so they measure the encoding alone, not what a smaller size or fewer frames leave out. Bytes and CPU
seconds are an hour of source; CPU seconds are those of the whole normalisation, decoding the source among them.
Beside them what the same pictures come to as JPEG files, as data sets of frames are often stored: at the default
quality of Pillow (75), and at that of ffmpeg, as `ffmpeg -i video %05d.jpg` writes them.
"all" is over the frames of all videos: PSNR of the mean squared error, mean SSIM.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks.talk import MEDIA, cpu_seconds, run_ffmpeg
from ingest.ffmpeg import FFmpeg, find_ffmpeg
from ingest.normalise import NormaliseSettings, Proxy, normalise, picture_filters
from ingest.probe import Probe, probe

PROFILES = {
    "small": NormaliseSettings(short_side=224, crf=28, audio_bits=32000),
    "default": NormaliseSettings(),
    "fine": NormaliseSettings(short_side=320, fps=20, crf=20, key_frame_seconds=0.5),
    # The default but for one thing.
    "crf18": NormaliseSettings(crf=18),
    "crf28": NormaliseSettings(crf=28),
    "ultrafast": NormaliseSettings(preset="ultrafast"),
    "medium": NormaliseSettings(preset="medium"),
    "key0.5s": NormaliseSettings(key_frame_seconds=0.5),
    "key2s": NormaliseSettings(key_frame_seconds=2),
}
THREE = ["small", "default", "fine"]
_ENDINGS = (".mp4", ".mkv", ".webm", ".mov")


@dataclass(frozen=True)
class Measured:
    """What was seen of one or several videos; `error` is the mean squared error, of 255²."""

    seconds: float
    cpu: float
    picture_bytes: int
    sound_bytes: int
    frames: int
    error: float
    ssim: float

    @property
    def psnr(self) -> float:
        """Peak signal to noise ratio in dB."""
        return 10 * math.log10(255**2 / self.error) if self.error else math.inf

    def line(self, name: str) -> str:
        """A row of the table."""
        hour = 3600 / self.seconds
        picture, sound = (f"{size * hour / 1e6:6.1f}" for size in (self.picture_bytes, self.sound_bytes))
        cpu = f"{self.cpu * hour:5.0f}" if self.cpu else "    -"
        return f"| {name:36} | {self.psnr:5.1f} | {self.ssim:.4f} | {picture} | {sound} | {cpu} |"


HEAD = f"| {'profile: video':36} | PSNR  | SSIM   | MB/h picture | MB/h sound | CPU-s/h |\n|---|---|---|---|---|---|"
PROXY, PILLOW, FFMPEG = "", ", Pillow's JPEG", ", ffmpeg's JPEG"


def pooled(parts: Sequence[Measured]) -> Measured:
    """All videos as one."""
    frames = sum(part.frames for part in parts)
    return Measured(
        seconds=sum(part.seconds for part in parts),
        cpu=sum(part.cpu for part in parts),
        picture_bytes=sum(part.picture_bytes for part in parts),
        sound_bytes=sum(part.sound_bytes for part in parts),
        frames=frames,
        error=sum(part.error * part.frames for part in parts) / frames,
        ssim=sum(part.ssim * part.frames for part in parts) / frames,
    )


def measure(source: Path, folder: Path, settings: NormaliseSettings, ffmpeg: FFmpeg) -> dict[str, Measured]:
    """Normalise a video, and compare the proxy's pictures, and JPEG files of them, with those that were encoded."""
    folder.mkdir()
    began = cpu_seconds()
    found = probe(source, folder, ffmpeg)
    proxy = normalise(found, folder / "proxy.mp4", settings, ffmpeg)
    cpu = cpu_seconds() - began
    side = Side(found, proxy, settings, ffmpeg, folder)
    sound = packet_bytes(proxy.path, "audio") if proxy.audio else 0
    pillow, own = folder / "pillow.mjpeg", folder / "ffmpeg.mjpeg"
    pillow_jpeg(side, pillow)
    run_ffmpeg(ffmpeg, *side.source(), "-map", side.stream, "-vf", side.filters, own)
    still = ("-framerate", str(settings.fps), "-i")
    return {
        PROXY: side.compared(("-i", proxy.path.name), packet_bytes(proxy.path, "video"), sound, cpu),
        PILLOW: side.compared((*still, pillow.name), pillow.stat().st_size),
        FFMPEG: side.compared((*still, own.name), own.stat().st_size),
    }


@dataclass(frozen=True)
class Side:
    """The pictures of a source that were encoded, to hold others against."""

    found: Probe
    proxy: Proxy
    settings: NormaliseSettings
    ffmpeg: FFmpeg
    folder: Path

    @property
    def stream(self) -> str:
        """The stream of pictures, as ffmpeg names it."""
        assert self.found.video is not None
        return f"0:{self.found.video.index}"

    @property
    def filters(self) -> str:
        """From the source's pictures to those that are encoded."""
        return ",".join(picture_filters(self.found, self.settings))

    def source(self) -> tuple[str | Path, ...]:
        """The source as ffmpeg's input."""
        assert self.found.video is not None
        return ("-i", self.found.video.path.resolve())

    def compared(self, coded: Sequence[str], picture_bytes: int, sound_bytes: int = 0, cpu: float = 0) -> Measured:
        """The brightness of each frame against that which was encoded."""
        same = "scale=out_range=limited,format=yuv420p"  # JPEG has the full range
        graph = (
            f"[{self.stream}]{self.filters},settb=1/{self.settings.fps},split[a][b];"
            f"[1:v]{same},settb=1/{self.settings.fps},split[c][d];"
            "[c][a]psnr=stats_file=psnr.txt:shortest=1[p];[d][b]ssim=stats_file=ssim.txt:shortest=1[s]"
        )
        maps = ("-map", "[p]", "-map", "[s]", "-f", "null", "-")
        command = [self.ffmpeg.path, "-nostdin", "-v", "error", *self.source(), *coded, "-lavfi", graph, *maps]
        subprocess.run(command, check=True, cwd=self.folder)
        errors = numbers(self.folder / "psnr.txt", r"mse_y:(\S+)")
        alike = numbers(self.folder / "ssim.txt", r" Y:(\S+)")
        expected = round(self.proxy.picture_seconds * self.settings.fps)
        assert len(errors) == len(alike) == expected, "the sides differ in their frames"
        return Measured(
            seconds=self.proxy.duration, cpu=cpu, picture_bytes=picture_bytes, sound_bytes=sound_bytes,
            frames=expected, error=sum(errors) / expected, ssim=sum(alike) / expected,
        )  # fmt: skip


def packet_bytes(path: Path, kind: str) -> int:
    """Bytes of a file's pictures or sound."""
    with av.open(str(path)) as container:
        streams: Any = getattr(container.streams, kind)
        return sum(packet.size for packet in container.demux(streams[0]))


def numbers(path: Path, pattern: str) -> list[float]:
    """What a pattern finds in a filter's statistics, a line a frame."""
    return [float(found) for found in re.findall(pattern, path.read_text())]


def pillow_jpeg(side: Side, target: Path) -> None:
    """Write the pictures that were encoded as JPEG of Pillow's default quality, one behind the other."""
    shape = (side.proxy.height, side.proxy.width, 3)
    raw = ("-map", side.stream, "-vf", side.filters, "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1")
    command = [side.ffmpeg.path, "-nostdin", "-v", "error", *side.source(), *raw]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, target.open("wb") as file:
        assert process.stdout is not None
        while data := process.stdout.read(math.prod(shape)):
            Image.fromarray(np.frombuffer(data, np.uint8).reshape(shape)).save(file, "JPEG")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--files", nargs="+", help="of these videos only")
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=THREE)
    asked = parser.parse_args()
    sources = [path for path in sorted(asked.media.glob("*")) if path.suffix in _ENDINGS]
    sources = [path for path in sources if not asked.files or path.name in asked.files]
    if not sources:
        sys.exit(f"no videos in {asked.media}: name a folder that has some with --media")
    ffmpeg = find_ffmpeg()
    print(HEAD)
    for name in asked.profiles:
        seen: list[dict[str, Measured]] = []
        for source in sources:
            with tempfile.TemporaryDirectory(prefix="sayso-") as folder:
                seen.append(measure(source, Path(folder) / "work", PROFILES[name], ffmpeg))
            print(seen[-1][PROXY].line(f"{name}: {source.name}"), flush=True)
        for way in (PROXY, PILLOW, FFMPEG):
            print(pooled([each[way] for each in seen]).line(f"{name}: all{way}"), flush=True)


if __name__ == "__main__":
    main()
