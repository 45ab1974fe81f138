"""Makes the proxy of a foreign file: one locked-up ffmpeg process, one pass, the same bytes each time.

Everything after this step reads the proxy and never the foreign file. Its time is the source's, counted from the
container's start. Frames come at a constant rate: the frame at t is the very picture that the source shows at t, the
last one that begins at or before t by the source's own timestamps (before its first picture, that one). So the time of
a clip's first frame in the source is known exactly. Sound keeps its place within 15 ms; where it begins later or is
interrupted, silence fills it up. Picture and sound in two files, as sites deliver them, have one clock, and time counts
from where the earlier one begins. Each second begins with a key frame (closed groups of pictures without B-frames, so
that a clip is a copy of packets), pixels are square and the picture stands upright.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import ffmpeg as ffmpeg_python
from pydantic import Field

from ingest.ffmpeg import FFmpeg
from ingest.jail import Limits, Outcome, run
from ingest.probe import Probe, VideoStream, input_options
from sayso.config import Settings
from sayso.errors import NoSpace, Permanent, Retry, Skip
from sayso.rows import Interval

_WHOLE = 0.9  # of what is declared must be decoded, else the file counts as cut off
_SPARE_BYTES = 1 << 20
# Containers that only count pictures, from 0 on. With B-frames the decoder gives the first out with a later time.
_WITHOUT_TIMES = frozenset({"avi"})
# Beyond so many seconds a leap of an MPEG stream's clock is no gap but another recording. At ffmpeg's own 10 s pictures
# that stand for longer would pull all that follows out of step with the sound.
_GAPS = ("-dts_delta_threshold", "600")
# Picture and sound in two files that begin further apart than so many seconds do not have one clock.
_MOST_APART = 10.0


Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]


class NormaliseSettings(Settings):
    """The proxy's profile, and what is refused. What profiles cost and lose is measured in docs/encoding.md."""

    short_side: int = Field(256, ge=16, description="pixels of the proxy's shorter side; never enlarged to it")
    fps: int = Field(10, ge=1, le=60, description="frames a second")
    key_frame_seconds: float = Field(1.0, gt=0, description="seconds from key frame to key frame")
    crf: int = Field(23, ge=0, le=51, description="x264's constant rate factor; higher is smaller")
    preset: Preset = Field("veryfast", description="x264's preset; slower ones make smaller files of the same crf")
    audio_rate: int = Field(16000, ge=8000, description="samples a second, mono")
    audio_bits: int = Field(64000, ge=16000, description="bits a second of AAC")
    still_seconds: float = Field(2.0, gt=0, description="shortest time without change that counts as still")
    still_noise: float = Field(
        0.003, gt=0, lt=1, description="mean change of a pixel, of 1, below which a picture is the same"
    )
    max_duration: float = Field(4 * 3600.0, gt=0, description="longest source, in seconds")
    max_side: int = Field(8192, ge=16, description="longest side of a source, in pixels")
    seconds_at_least: float = Field(60.0, gt=0, description="wall-clock seconds that any source may take")
    seconds_per_second: float = Field(2.0, gt=0, description="further wall-clock seconds for each second of source")
    memory_bytes: int = Field(4 << 30, ge=1 << 28, description="address space of the ffmpeg process")

    def time_limit(self, duration: float | None) -> float:
        """Wall-clock seconds that a source of this duration may take."""
        return self.seconds_at_least + self.seconds_per_second * (duration or self.max_duration)


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A finished proxy. `width`, `height` and `fps` are 0 where there is sound only."""

    path: Path
    picture_seconds: float
    sound_seconds: float
    width: int
    height: int
    fps: float
    still: list[Interval]

    @property
    def duration(self) -> float:
        """Seconds to the end of what ends last."""
        return max(self.picture_seconds, self.sound_seconds)

    @property
    def audio(self) -> bool:
        """Whether there is any sound."""
        return self.sound_seconds > 0


def normalise(found: Probe, target: Path, settings: NormaliseSettings, ffmpeg: FFmpeg) -> Proxy:
    """Write the proxy of what was probed to `target`; its folder also takes what ffmpeg prints.

    Raises Skip("too_long" or "too_large"), Permanent("unsupported_codec", "undecodable", "truncated", "too_costly" or
    "out_of_memory"), Retry("ffmpeg_timeout") and NoSpace.
    """
    _refuse(found, settings, ffmpeg)
    printed = target.with_suffix(".still")
    command = _command(found, target, settings, ffmpeg)
    outcome = run(command, folder=target.parent, stdout=printed, limits=_limits(found, settings))
    judge(outcome, target.parent)
    proxy = _inspect(target, still_intervals(printed.read_text(errors="replace"), settings.still_seconds))
    _check_whole(proxy, found, settings)
    return proxy


def _refuse(found: Probe, settings: NormaliseSettings, ffmpeg: FFmpeg) -> None:
    if found.duration and found.duration > settings.max_duration:
        raise Skip("too_long", f"{found.duration:.0f} s; at most {settings.max_duration:.0f} s are taken")
    if found.video and max(found.video.width, found.video.height) > settings.max_side:
        size = f"{found.video.width}x{found.video.height}"
        raise Skip("too_large", f"a picture of {size}; at most {settings.max_side} pixels a side are taken")
    if found.video and found.video.codec == "av1" and not ffmpeg.decodes_av1:
        raise Permanent("unsupported_codec", f"{ffmpeg.path} cannot decode AV1: put an ffmpeg with libdav1d on PATH")


def _limits(found: Probe, settings: NormaliseSettings) -> Limits:
    seconds = settings.time_limit(found.duration)
    rate = 125_000 + settings.audio_bits // 8  # 1 Mbit/s of picture is far above what the profile needs
    return Limits(
        seconds=seconds,
        cpu_seconds=2 * seconds,
        memory_bytes=settings.memory_bytes,
        file_bytes=(16 << 20) + int(rate * (found.duration or settings.max_duration)),
    )


def proxy_size(video: VideoStream, short_side: int) -> tuple[int, int]:
    """Width and height of the proxy: even, the source's proportions, the short side at most `short_side`."""
    scale = short_side / min(video.width, video.height)
    if scale >= 1:
        return _even(video.width), _even(video.height)
    return 2 * round(video.width * scale / 2), 2 * round(video.height * scale / 2)


def _even(pixels: int) -> int:
    return max(2, pixels - pixels % 2)


def _command(found: Probe, target: Path, settings: NormaliseSettings, ffmpeg: FFmpeg) -> list[str]:
    """The ffmpeg command line. The target is named relative to its folder, where the process runs."""
    wanted = [stream for stream in (found.video, found.audio) if stream]
    guards = {"threads": 1, "max_pixels": settings.max_side**2, **input_options()}
    opened = {
        path: ffmpeg_python.input(f"file:{path.resolve()}", **guards, **moved)
        for path, moved in _moved({stream.path: stream.begin for stream in wanted}).items()
    }
    streams = [opened[stream.path][str(stream.index)] for stream in wanted]
    options: dict[str, Any] = {
        "f": "mp4",
        "t": settings.max_duration + 1,
        "map_metadata": -1,
        "map_chapters": -1,
        "fflags": "+bitexact",
        "movflags": "+faststart",
        "filter_threads": 1,
    }
    if found.video:
        options |= _picture(found, settings)
    if found.audio:
        options |= sound_coding(settings)
    output = ffmpeg_python.output(*streams, f"file:{target.name}", **options)
    guarded = output.global_args("-nostdin", "-hide_banner", "-nostats", "-loglevel", "error", "-y", *_GAPS)
    return list(guarded.compile(cmd=str(ffmpeg.path)))


def _moved(begins: Mapping[Path, float]) -> dict[Path, dict[str, float]]:
    """Options that move files against each other as they lie on their clock; ffmpeg has each begin at 0."""
    first, last = min(begins.values()), max(begins.values())
    if last - first > _MOST_APART:
        return {path: {} for path in begins}
    return {path: {"itsoffset": round(begin - first, 6)} if begin > first else {} for path, begin in begins.items()}


def picture_filters(found: Probe, settings: NormaliseSettings) -> list[str]:
    """From decoded pictures to those that are encoded."""
    assert found.video is not None
    width, height = proxy_size(found.video, settings.short_side)
    counted = ["setpts=PTS-STARTPTS"] if found.container in _WITHOUT_TIMES else []
    return [
        *counted,
        # Rounding up puts a picture at the first frame at or after its beginning, and the end at the first at or after
        # the end: no frame shows what the source shows only later. Early, so that frames not needed are not scaled.
        f"fps=fps={settings.fps}:start_time=0:round=up",
        f"scale=w={width}:h={height}:out_range=limited:flags=bicubic+accurate_rnd+bitexact",
        "setsar=1",
        "format=yuv420p",
    ]


def picture_coding(settings: NormaliseSettings) -> dict[str, Any]:
    """How pictures are encoded, as ffmpeg's options."""
    every = max(1, round(settings.fps * settings.key_frame_seconds))
    return {
        "c:v": "libx264",
        "threads:v": 1,
        "preset": settings.preset,
        "crf": settings.crf,
        "flags:v": "+bitexact+cgop",
        # Macroblock-tree rate control now and then reads memory that nobody wrote: other bytes from the same source.
        "x264-params": f"keyint={every}:min-keyint={every}:scenecut=0:open-gop=0:bframes=0:mbtree=0",
    }


def _picture(found: Probe, settings: NormaliseSettings) -> dict[str, Any]:
    chain = [
        *picture_filters(found, settings),
        "metadata=mode=delete",  # a foreign file must not be able to print what freezedetect prints
        f"freezedetect=d={settings.still_seconds}:n={settings.still_noise}",
        *(f"metadata=mode=print:key={_FREEZE}{edge}:file='pipe\\:1':direct=1" for edge in ("start", "end")),
    ]
    return {"vf": ",".join(chain), **picture_coding(settings)}


def sound_coding(settings: NormaliseSettings) -> dict[str, Any]:
    """How sound is filtered and encoded, as ffmpeg's options."""
    # async=1 fills what is missing in the source with silence, as soon as sound is 15 ms from its time (ffmpeg's own
    # 100 ms would be heard and seen, and less would be the jitter of some containers); first_pts=0 also where sound
    # begins after picture.
    placed = f"aresample={settings.audio_rate}:async=1:min_hard_comp=0.015:first_pts=0"
    chain = f"{placed},aformat=sample_fmts=fltp:channel_layouts=mono"
    return {"af": chain, "c:a": "aac", "b:a": settings.audio_bits, "flags:a": "+bitexact"}


def judge(outcome: Outcome, folder: Path) -> None:
    """Say what went wrong, if anything did. ffmpeg's exit status is the low byte of its (negative) error number."""
    if outcome.code == 0:
        return
    if outcome.timed_out:
        raise Retry("ffmpeg_timeout", "ffmpeg was not done in its time")
    if outcome.out_of_cpu:
        raise Permanent("too_costly", "ffmpeg used up its CPU time")
    if outcome.out_of_file:
        raise Permanent("too_costly", "the proxy grew beyond any sensible size")
    if outcome.code == 256 - errno.ENOSPC or shutil.disk_usage(folder).free < _SPARE_BYTES:
        raise NoSpace(f"no space left on {folder}: free some and run the same command again")
    if outcome.code == 256 - errno.ENOMEM:
        raise Permanent("out_of_memory", "ffmpeg needed more memory than it may have")
    raise Permanent("undecodable", outcome.tail.strip()[-500:] or f"ffmpeg ended with {outcome.code}")


def _inspect(path: Path, still: list[Interval]) -> Proxy:
    """What is inside a proxy, of our own making, and so opened in this process."""
    with av.open(str(path)) as container:
        video = container.streams.video[0] if container.streams.video else None
        picture = _seconds(video)
        return Proxy(
            path=path,
            picture_seconds=picture,
            sound_seconds=_seconds(container.streams.audio[0] if container.streams.audio else None),
            width=video.width if video else 0,
            height=video.height if video else 0,
            fps=float(video.average_rate or 0) if video else 0.0,
            still=[Interval(start=part.start, end=min(part.end, picture)) for part in still],
        )


def _seconds(stream: av.stream.Stream | None) -> float:
    return float(stream.duration * stream.time_base) if stream and stream.duration and stream.time_base else 0.0


def _check_whole(proxy: Proxy, found: Probe, settings: NormaliseSettings) -> None:
    """Refuse what is too long after all, and what ended before it should: the file, its picture or its sound."""
    if proxy.duration > settings.max_duration:
        raise Skip("too_long", f"longer than {settings.max_duration:.0f} s")
    if proxy.duration == 0:
        raise Permanent("undecodable", "nothing in it could be decoded")
    parts = {
        "": (proxy.duration, found.duration),
        " of the picture": (proxy.picture_seconds, found.video.duration if found.video else None),
        " of the sound": (proxy.sound_seconds, found.audio.duration if found.audio else None),
    }
    for name, (decoded, declared) in parts.items():
        if declared and decoded < _WHOLE * declared:
            raise Permanent("truncated", f"{decoded:.1f} s{name} could be decoded of {declared:.1f} s declared")


_FREEZE = "lavfi.freezedetect.freeze_"


def still_intervals(printed: str, least: float) -> list[Interval]:
    """The stretches that freezedetect printed as `key=value` lines; one that has no end lasts to the end (inf).

    A start that is followed by another start was ended by a change of the picture's size, which starts the filter
    anew: then only `least` seconds are known to be still.
    """
    found: list[Interval] = []
    start: float | None = None
    for edge, time in _edges(printed):
        if start is not None:
            found.append(Interval(start=start, end=time if edge == "end" else start + least))
        start = time if edge == "start" else None
    if start is not None:
        found.append(Interval(start=start, end=math.inf))
    return found


def _edges(printed: str) -> Iterator[tuple[str, float]]:
    for line in printed.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.startswith(_FREEZE):
            yield key.removeprefix(_FREEZE), float(value)
