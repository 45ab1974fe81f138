"""What a foreign file is: its container and its streams, as told by a locked-up ffprobe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ingest.ffmpeg import FFmpeg
from ingest.jail import Limits, run
from sayso.errors import Permanent, Retry

# The containers that are read, by the first of ffmpeg's names for them, and the ending of a file of that kind.
# Playlists, scripts and pictures are not here: they would make ffmpeg open other files.
CONTAINERS = {
    "mov": "mp4",
    "matroska": "mkv",
    "avi": "avi",
    "flv": "flv",
    "asf": "wmv",
    "mpegts": "ts",
    "mpeg": "mpg",
    "ogg": "ogg",
    "wav": "wav",
    "w64": "w64",
    "aiff": "aiff",
    "flac": "flac",
    "mp3": "mp3",
    "aac": "aac",
    "amr": "amr",
    "caf": "caf",
}
# Containers that write down how long they are; of the others ffprobe only estimates it.
_DECLARING = frozenset({"mov", "matroska", "avi", "flv", "asf", "ogg", "wav", "w64", "aiff", "flac", "caf"})
# Of these the declared duration counts from 0, though the streams may begin later.
_COUNTING_FROM_ZERO = frozenset({"matroska", "flv"})

_LIMITS = Limits(seconds=60.0, cpu_seconds=60.0, memory_bytes=4 << 30, file_bytes=16 << 20)
_ISO_FIRST_BOX = b"ftyp"


@dataclass(frozen=True, kw_only=True)
class VideoStream:
    """A stream of moving pictures; `width` and `height` as shown, after rotation and pixel shape, in pixels.

    `begin` is when its file begins by its own clock, in seconds; it may be negative.
    """

    path: Path
    begin: float
    index: int
    codec: str
    width: int
    height: int
    coded_pixels: int
    fps: float | None
    duration: float | None


@dataclass(frozen=True, kw_only=True)
class AudioStream:
    """A stream of sound; `begin` is when its file begins by its own clock, in seconds."""

    path: Path
    begin: float
    index: int
    codec: str
    duration: float | None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A container and the streams that are worth having; durations are None where nothing is declared."""

    container: str
    duration: float | None
    video: VideoStream | None
    audio: AudioStream | None

    def with_sound(self, sound: Probe) -> Probe:
        """This picture with the sound of another file, as sites deliver them."""
        durations = [found.duration for found in (self, sound) if found.duration]
        return replace(self, audio=sound.audio or self.audio, duration=max(durations, default=None))


def input_options() -> dict[str, str]:
    """What ffmpeg and ffprobe may open: this one file, in one of the containers above."""
    return {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}


def probe(source: Path, folder: Path, ffmpeg: FFmpeg) -> Probe:
    """Look at a file, with `folder` for what ffprobe prints.

    Raises Permanent("not_media") where it is no media or a container that is not read, Permanent("truncated") where
    its index is missing.
    """
    listing = folder / "probe.json"
    options = [part for name, value in input_options().items() for part in (f"-{name}", value)]
    wanted = ["-v", "error", "-of", "json", "-show_format", "-show_streams"]
    command = [str(ffmpeg.probe), *wanted, *options, f"file:{source.resolve()}"]
    outcome = run(command, folder=folder, stdout=listing, limits=_LIMITS)
    if outcome.timed_out:
        raise Retry("probe_timeout", f"ffprobe was not done with {source.name} after {_LIMITS.seconds:.0f} s")
    if outcome.code != 0:
        if _is_iso(source):
            raise Permanent("truncated", f"{source.name}: an MP4 without its index: cut off, or never finished")
        raise Permanent(
            "not_media", f"{source.name}: not a video or sound that is read ({', '.join(CONTAINERS.values())})"
        )
    return _read(json.loads(listing.read_bytes()), source)


def _is_iso(source: Path) -> bool:
    with source.open("rb") as file:
        return file.read(8)[4:] == _ISO_FIRST_BOX


def _read(listing: Mapping[str, Any], path: Path) -> Probe:
    form = listing["format"]
    container = form["format_name"].split(",")[0]
    begin = _number(form, "start_time") or 0.0
    streams = [stream for stream in listing.get("streams", []) if stream.get("codec_name", "unknown") != "unknown"]
    videos = [found for stream in streams if (found := _video(stream, path, begin))]
    sounds = [stream for stream in streams if stream.get("codec_type") == "audio" and stream.get("sample_rate")]
    if not videos and not sounds:
        raise Permanent("not_media", f"{path.name}: neither pictures nor sound inside ({container})")
    return Probe(
        container=container,
        duration=_declared(form, container),
        video=max(videos, key=lambda video: video.coded_pixels, default=None),
        audio=_audio(max(sounds, key=_audio_merit), path, begin) if sounds else None,
    )


def _declared(form: Mapping[str, Any], container: str) -> float | None:
    """How long the container says that it is, from its first frame on; None where ffprobe only estimates it."""
    seconds = _seconds(form, "duration")
    if seconds is None or container not in _DECLARING:
        return None
    if container in _COUNTING_FROM_ZERO:
        seconds -= _seconds(form, "start_time") or 0.0
    return seconds if seconds > 0 else None


def _video(stream: Mapping[str, Any], path: Path, begin: float) -> VideoStream | None:
    """A stream as video; None where it is something else, a cover picture, or without a size."""
    disposition = stream.get("disposition", {})
    width, height = int(stream.get("width", 0)), int(stream.get("height", 0))
    if stream.get("codec_type") != "video" or width < 1 or height < 1:
        return None
    if disposition.get("attached_pic") or disposition.get("timed_thumbnails"):
        return None
    shown = (max(1, round(width * (_ratio(stream.get("sample_aspect_ratio")) or 1.0))), height)
    return VideoStream(
        path=path,
        begin=begin,
        index=int(stream["index"]),
        codec=stream["codec_name"],
        width=shown[1] if _lies_on_side(stream) else shown[0],
        height=shown[0] if _lies_on_side(stream) else shown[1],
        coded_pixels=width * height,
        fps=_ratio(stream.get("avg_frame_rate")),
        duration=_seconds(stream, "duration"),
    )


def _lies_on_side(stream: Mapping[str, Any]) -> bool:
    """Whether players turn this stream by a quarter."""
    turns = [data["rotation"] for data in stream.get("side_data_list", []) if "rotation" in data]
    return bool(turns) and abs(abs(int(turns[0])) % 180 - 90) < 45


def _audio(stream: Mapping[str, Any], path: Path, begin: float) -> AudioStream:
    return AudioStream(
        path=path,
        begin=begin,
        index=int(stream["index"]),
        codec=stream["codec_name"],
        duration=_seconds(stream, "duration"),
    )


def _audio_merit(stream: Mapping[str, Any]) -> tuple[int, ...]:
    """Orders sound streams: what players choose first, never a description or a comment, then the fuller sound."""
    disposition = stream.get("disposition", {})
    aside = sum(disposition.get(flag, 0) for flag in ("visual_impaired", "hearing_impaired", "comment", "karaoke"))
    rate, channels = int(stream["sample_rate"]), int(stream.get("channels", 0))
    return (-aside, disposition.get("default", 0), channels, rate, -int(stream["index"]))


def _ratio(text: str | None) -> float | None:
    """A positive ratio such as "30000/1001" or "4:3"; None where it is unknown."""
    above, _, below = (text or "").replace(":", "/").partition("/")
    if not above.isdecimal() or not below.isdecimal() or int(below) == 0 or int(above) == 0:
        return None
    return float(Fraction(int(above), int(below)))


def _seconds(part: Mapping[str, Any], name: str) -> float | None:
    """A time that is told, if it is a positive number."""
    seconds = _number(part, name)
    return seconds if seconds is not None and seconds > 0 else None


def _number(part: Mapping[str, Any], name: str) -> float | None:
    try:
        number = float(part[name])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None
