"""Pictures of a clip at given times, scaled and cropped. Always by presentation time, never by frame number."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from sayso.errors import CorruptObject

Pixels = npt.NDArray[np.uint8]
_TOLERANCE_SECONDS = 0.001
"""A picture that begins this little after a time is the one shown then: times come out of float arithmetic."""


@dataclass(frozen=True)
class Crop:
    """A square of `size` px out of a picture scaled to `short_side` px; `x` and `y` in [0, 1] say where it lies."""

    size: int
    short_side: int
    x: float = 0.5
    y: float = 0.5
    flip: bool = False


def decode(data: bytes, times: Sequence[float], crop: Crop) -> Pixels:
    """The pictures shown at `times` (rising, seconds of the clip) -> uint8 (len(times), size, size, 3), RGB.

    Before the first picture the first is given, after the last the last. Raises CorruptObject where there is none
    or the clip cannot be decoded.
    """
    out = np.empty((len(times), crop.size, crop.size, 3), dtype=np.uint8)
    done = 0
    try:
        # One for all pictures: setting up a conversion costs more than converting a picture.
        converter = VideoReformatter()
        with av.open(io.BytesIO(data), "r") as container:
            for frame, count in _shown(_frames(container, times[0]), times):
                out[done : done + count] = _cropped(frame, crop, converter)
                done += count
    except av.FFmpegError as error:
        raise CorruptObject(f"clip cannot be decoded ({error.strerror})") from None
    if done < len(times):
        raise CorruptObject("clip has no picture")
    return out


def _frames(container: InputContainer, start: float) -> Iterator[VideoFrame]:
    """Pictures from the last key frame at or before `start` on."""
    stream = _video(container)
    assert stream.time_base is not None
    # One thread a clip: loaders run a process a core.
    stream.codec_context.thread_count = 1
    target, back = start, 1.0
    while target > 0:
        container.seek(int(target / stream.time_base), stream=stream, backward=True)
        frames = container.decode(stream)
        first = next(frames, None)
        # The demuxer seeks by decoding times; with B-frames it can land on a key frame that is shown too late.
        if first is not None and first.time is not None and first.time <= start + _TOLERANCE_SECONDS:
            yield first
            yield from frames
            return
        target, back = target - back, 2 * back
    container.seek(0, stream=stream, backward=True)
    yield from container.decode(stream)


def _video(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise CorruptObject("clip has no picture")
    return container.streams.video[0]


def _shown(frames: Iterator[VideoFrame], times: Sequence[float]) -> Iterator[tuple[VideoFrame, int]]:
    """Each picture that is shown at any of the times, and at how many of them. Stops decoding behind the last."""
    place = 0
    shown: VideoFrame | None = None
    for frame in frames:
        begins = frame.time if frame.time is not None else 0.0
        before = place
        while place < len(times) and shown is not None and times[place] < begins - _TOLERANCE_SECONDS:
            place += 1
        if shown is not None and place > before:
            yield shown, place - before
        if place == len(times):
            return
        shown = frame
    if shown is not None:
        yield shown, len(times) - place


def _cropped(frame: VideoFrame, crop: Crop, converter: VideoReformatter) -> Pixels:
    scale = crop.short_side / min(frame.width, frame.height)
    width, height = (max(_even(side * scale), crop.size) for side in (frame.width, frame.height))
    rgb = cast(Pixels, converter.reformat(frame, format="rgb24", width=width, height=height).to_ndarray())
    left, top = round(crop.x * (width - crop.size)), round(crop.y * (height - crop.size))
    square = rgb[top : top + crop.size, left : left + crop.size]
    return square[:, ::-1] if crop.flip else square


def _even(pixels: float) -> int:
    """The nearest even number; odd widths take twice the time to convert."""
    return 2 * round(pixels / 2)
