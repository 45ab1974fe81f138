"""The pictures of clips: windows of the model's length, spread evenly over a clip, each a centre crop."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from shards.crop import Crop
from shards.decode import decode
from shards.reader import ReaderSettings
from train.evaluate.pairs import Pair
from train.evaluate.videos import Videos


def window_starts(start: float, end: float, *, windows: int, seconds: float) -> list[float]:
    """Starts of N windows spread evenly over [start, end); all at the start where it is shorter than a window."""
    last = max(start, end - seconds)
    starts: list[float] = torch.linspace(start, last, windows, dtype=torch.float64).tolist()
    return starts


def trained_crop(clips: ReaderSettings) -> Crop:
    """The middle of a picture scaled as in training, with a margin around the crop."""
    return Crop(size=clips.size, short_side=clips.scaled_short_side)


def published_crop(clips: ReaderSettings) -> Crop:
    """The middle square of a picture, the whole of its short side: what the published protocols look at."""
    return Crop(size=clips.size, short_side=clips.size)


def windows_at(data: bytes, starts: Sequence[float], clips: ReaderSettings, crop: Crop) -> Iterator[Tensor]:
    """The windows that begin at these seconds of an MP4 -> uint8 (T, size, size, 3) each.

    Behind the end of the video its last picture stands.
    """
    for first in starts:
        yield torch.from_numpy(decode(data, [first + i / clips.fps for i in range(clips.frames)], crop))


def usable(pairs: Sequence[Pair], videos: Videos) -> list[Pair]:
    """The pairs whose video is there and has not ended before they begin."""
    return [p for p in pairs if p.video_id in videos.there and p.start < videos.there[p.video_id].duration]
