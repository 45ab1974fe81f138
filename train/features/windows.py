"""The frames that a model sees of a video for each of its rows, for several models at once.

    proxy, decoded once, picture by picture -> of each stream the part that its model sees -> windows, by row

Row i of a stream stands for [i / fps, (i + 1) / fps). Its window is `frames` frames, `frame_fps` a second, around the
middle of that: frame j is the picture shown at (i + 1/2) / fps + (j - (frames - 1) / 2) / frame_fps. Before the first
picture of the video the first stands, after the last the last. Only the pictures of windows that are not full yet are
held, so memory does not grow with the video.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from sayso.errors import CorruptObject
from shards.crop import Crop
from shards.decode import TOLERANCE_SECONDS, Cutter, Pixels

_SLACK = 1e-6
"""Of a row: a video that ends where a row would begin has no such row, whatever float arithmetic says."""


@dataclass(frozen=True)
class Sight:
    """What a model sees for a row."""

    crop: Crop
    frames: int = 1
    frame_fps: float = 1.0

    def __str__(self) -> str:
        seen = f"{self.crop.size} of {self.crop.short_side} px"
        return seen if self.frames == 1 else f"{self.frames} frames at {self.frame_fps:g} fps, {seen}"

    def times(self, row: int, fps: float) -> list[float]:
        """When the frames of a row are shown, in seconds of the video."""
        middle = (row + 0.5) / fps
        return [middle + (place - (self.frames - 1) / 2) / self.frame_fps for place in range(self.frames)]


@dataclass(frozen=True)
class View:
    """How a stream looks at a video of a certain length: which windows there are."""

    sight: Sight
    fps: float
    rows: int


def rows_of(duration: float, fps: float) -> int:
    """Rows of a video that lasts so many seconds."""
    return max(1, math.ceil(duration * fps - _SLACK))


def windows(proxy: Path, views: Mapping[str, View]) -> Iterator[tuple[str, Pixels]]:
    """The windows of each stream, by row, uint8 (frames, size, size, 3), with the stream's name.

    CorruptObject where the proxy cannot be decoded.
    """
    try:
        with av.open(str(proxy)) as container:
            if not container.streams.video:
                raise CorruptObject(f"{proxy.name}: has no picture")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            assert stream.time_base is not None
            tick = float(stream.time_base)
            takers = {name: _Taker(view, tick) for name, view in views.items()}
            for frame, until in _with_ends(container.decode(stream)):
                for name, taker in takers.items():
                    yield from ((name, window) for window in taker.see(frame, until))
    except av.FFmpegError as error:
        raise CorruptObject(f"{proxy.name}: cannot be decoded ({error.strerror})") from None
    if any(taker.left for taker in takers.values()):
        raise CorruptObject(f"{proxy.name}: has no picture")


def _with_ends(frames: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, float]]:
    """Each picture, and when the next one begins (ticks); of the last that is never."""
    before: VideoFrame | None = None
    for frame in frames:
        if frame.pts is None:
            continue
        if before is not None:
            yield before, frame.pts
        before = frame
    if before is not None:
        yield before, math.inf


@dataclass
class _Window:
    """A window that is being filled: when its frames are shown (ticks), and those that were seen."""

    ticks: list[int]
    pictures: list[Pixels] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Frames that were not seen yet."""
        return len(self.ticks) - len(self.pictures)


class _Taker:
    """Takes out of a row of pictures the windows of one stream."""

    def __init__(self, view: View, tick: float) -> None:
        """`tick` is the length of the film's unit of time, in seconds."""
        self._view, self._tick = view, tick
        self._begun = 0
        self._filling: deque[_Window] = deque()
        self._cutter: Cutter | None = None

    @property
    def left(self) -> bool:
        """Whether windows are missing still."""
        return self._begun < self._view.rows or bool(self._filling)

    def see(self, frame: VideoFrame, until: float) -> Iterator[Pixels]:
        """A picture, which is shown up to tick `until`: the windows that are full with it."""
        picture: Pixels | None = None
        place = 0
        while place < len(self._filling) or self._begin(until):
            window = self._filling[place]
            while window.missing and window.ticks[len(window.pictures)] < until:
                picture = self._cut(frame) if picture is None else picture
                window.pictures.append(picture)
            if window.missing:
                place += 1
                continue
            # Each ends before those that begin later, so this is the first of them.
            self._filling.popleft()
            yield np.stack(window.pictures)

    def _begin(self, until: float) -> bool:
        """Begin the next window, if it begins before `until`."""
        if self._begun == self._view.rows:
            return False
        times = self._view.sight.times(self._begun, self._view.fps)
        ticks = [math.floor((time + TOLERANCE_SECONDS) / self._tick) for time in times]
        if ticks[0] >= until:
            return False
        self._filling.append(_Window(ticks))
        self._begun += 1
        return True

    def _cut(self, frame: VideoFrame) -> Pixels:
        crop = self._view.sight.crop
        self._cutter = self._cutter or Cutter(frame, crop)
        return np.array(self._cutter(frame)).reshape(crop.size, crop.size, 3)
