"""The pictures of text-clip pairs: cut from the proxies of a dataset root, or taken from a split of an export.

A pair's clip is seen through N windows of the model's length, spread evenly over it, each a centre crop.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sayso.errors import CorruptObject
from shards.crop import Crop
from shards.decode import decode
from shards.reader import ClipReader, ReaderSettings
from train.evaluate.pairs import Pair
from train.evaluate.videos import Videos

Seen = tuple[Pair, Tensor]
"""A pair and its windows, uint8 (windows, T, size, size, 3)."""


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


def clips_in_root(
    pairs: Sequence[Pair], videos: Videos, clips: ReaderSettings, crop: Crop, *, windows: int
) -> Iterator[Seen]:
    """Each usable pair with its windows; every proxy is read once. CorruptObject names a broken one."""
    by_video: dict[str, list[Pair]] = defaultdict(list)
    for pair in usable(pairs, videos):
        by_video[pair.video_id].append(pair)
    for video_id, own in by_video.items():
        proxy, duration = videos.read(video_id), videos.there[video_id].duration
        for pair in own:
            end = min(pair.end, duration)
            starts = window_starts(pair.start, end, windows=windows, seconds=clips.frames / clips.fps)
            try:
                seen = torch.stack(list(windows_at(proxy, starts, clips, crop)))
            except CorruptObject as error:
                raise videos.broken(video_id, error) from None
            yield pair, seen


def clips_in_export(reader: ClipReader, clips: ReaderSettings, *, windows: int) -> Iterator[Seen]:
    """Each sample of a split as a pair of its anchor narration and its window."""
    crop = trained_crop(clips)
    for sample in reader.raw():
        facts = sample.facts
        pair = Pair(facts["video_id"], facts["start"], facts["end"], facts["candidates"][0]["text"])
        behind = facts["clip_start"]  # what of the video lies before the clip
        start, end = pair.start - behind, pair.end - behind
        starts = window_starts(start, end, windows=windows, seconds=clips.frames / clips.fps)
        yield pair, torch.stack(list(windows_at(sample.members["mp4"], starts, clips, crop)))
