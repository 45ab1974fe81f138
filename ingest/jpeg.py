"""Makes our own JPEG of a foreign picture in one locked-up process, the same bytes each time.

It stands upright, its colours are sRGB, what is transparent is white, and nothing of the source's metadata is in it.
Of an animation the first picture is taken.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import __version__ as PILLOW_VERSION
from pydantic import Field

from ingest.jail import Limits, Outcome, run
from sayso.config import Settings
from sayso.errors import NoSpace, Permanent, Retry

MADE_WITH = f"pillow {PILLOW_VERSION}"
_PROGRAM = Path(__file__).with_name("picture.py")
_REFUSALS = ("not_a_picture", "too_large", "too_small", "undecodable")
_FILE_BYTES = 64 << 20
_SPARE_BYTES = 1 << 20


class JpegSettings(Settings):
    """What becomes of a picture, and what is refused."""

    short_side: int = Field(256, ge=16, description="pixels of a picture's shorter side; never enlarged to it")
    quality: int = Field(
        95, ge=1, le=100, description="JPEG's quality; colours are kept at full resolution. 75 costs accuracy"
    )
    least_side: int = Field(16, ge=1, description="pictures with a shorter side are refused, in pixels")
    most_pixels: int = Field(100_000_000, ge=1, description="larger pictures are refused")
    seconds: float = Field(30.0, gt=0, description="wall-clock seconds that a picture may take")
    memory_bytes: int = Field(2 << 30, ge=1 << 28, description="address space of the process")


@dataclass(frozen=True)
class Jpeg:
    """A finished picture; its size in pixels."""

    path: Path
    width: int
    height: int


def to_jpeg(source: Path, target: Path, settings: JpegSettings) -> Jpeg:
    """Write the JPEG of a foreign picture to `target`; its folder also takes what the process prints.

    Raises Permanent("not_a_picture", "too_large", "too_small", "undecodable" or "too_costly"), Retry("picture_timeout")
    and NoSpace.
    """
    limits = Limits(
        seconds=settings.seconds,
        cpu_seconds=settings.seconds,
        memory_bytes=settings.memory_bytes,
        file_bytes=_FILE_BYTES,
    )
    printed = target.with_suffix(".json")
    numbers = (settings.short_side, settings.least_side, settings.most_pixels, settings.quality)
    command = [sys.executable, "-I", str(_PROGRAM), str(source.resolve()), target.name, *map(str, numbers)]
    _judge(run(command, folder=target.parent, stdout=printed, limits=limits), target.parent)
    said = json.loads(printed.read_bytes())
    if "refused" in said:
        reason = said["refused"] if said["refused"] in _REFUSALS else "undecodable"
        raise Permanent(reason, str(said.get("message", ""))[:300])
    return Jpeg(target, int(said["width"]), int(said["height"]))


def _judge(outcome: Outcome, folder: Path) -> None:
    """Say what went wrong with the process, if anything did."""
    if outcome.code == 0:
        return
    if outcome.timed_out:
        raise Retry("picture_timeout", "the picture was not done in its time")
    if outcome.out_of_cpu or outcome.out_of_file:
        raise Permanent("too_costly", "the picture used up its CPU time, or grew beyond any sensible size")
    if outcome.code == errno.ENOSPC or shutil.disk_usage(folder).free < _SPARE_BYTES:
        raise NoSpace(f"no space left on {folder}: free some and run the same command again")
    raise Permanent("undecodable", outcome.tail.strip()[-300:] or f"ended with {outcome.code}")
