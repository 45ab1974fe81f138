"""The pictures of text-clip pairs: cut from the proxies of a dataset root, or taken from a split of an export.

A pair's clip is seen through N windows of the model's length, spread evenly over it, each a centre crop.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sayso.errors import CorruptObject
from sayso.root import Root
from sayso.rows import Media
from shards.crop import Crop
from shards.decode import decode
from shards.reader import ClipReader, ReaderSettings
from train.evaluate.pairs import Pair

Seen = tuple[Pair, Tensor]
"""A pair and its windows, uint8 (windows, T, size, size, 3)."""


def window_starts(start: float, end: float, *, windows: int, seconds: float) -> list[float]:
    """Starts of N windows spread evenly over [start, end); all at the start where it is shorter than a window."""
    last = max(start, end - seconds)
    starts: list[float] = torch.linspace(start, last, windows, dtype=torch.float64).tolist()
    return starts


def windows_of(data: bytes, start: float, end: float, clips: ReaderSettings, *, windows: int) -> Tensor:
    """The windows over [start, end) of an MP4's own time -> uint8 (windows, T, size, size, 3)."""
    crop = Crop(size=clips.size, short_side=clips.scaled_short_side)
    starts = window_starts(start, end, windows=windows, seconds=clips.frames / clips.fps)
    pictures = [decode(data, [first + i / clips.fps for i in range(clips.frames)], crop) for first in starts]
    return torch.stack([torch.from_numpy(picture) for picture in pictures])


def videos_in_root(pairs: Sequence[Pair], root: Root) -> dict[str, Media]:
    """The media row of each video of the pairs that the root has, by the id in the pair.

    A CSV names videos by the id that their site gave them; ours have the site's name in front (youtube:ID).
    """
    rows = [row for row in root.table(Media).rows() if row.width]
    named = {row.video_id.partition(":")[2]: row for row in rows} | {row.video_id: row for row in rows}
    return {pair.video_id: named[pair.video_id] for pair in pairs if pair.video_id in named}


def clips_in_root(
    pairs: Sequence[Pair], media: dict[str, Media], root: Root, clips: ReaderSettings, *, windows: int
) -> Iterator[Seen]:
    """Each pair whose video is there, with its windows; every proxy is read once. CorruptObject names a broken one."""
    by_video: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.video_id in media:
            by_video[pair.video_id].append(pair)
    for video_id, own in by_video.items():
        key = media[video_id].key
        try:
            proxy = root.storage.read(key)
            for pair in own:
                yield pair, windows_of(proxy, pair.start, pair.end, clips, windows=windows)
        except (FileNotFoundError, CorruptObject) as error:
            raise CorruptObject(f"{key}: {error}; run `sayso verify`") from None


def clips_in_export(reader: ClipReader, clips: ReaderSettings, *, windows: int) -> Iterator[Seen]:
    """Each sample of a split as a pair of its anchor narration and its window."""
    for sample in reader.raw():
        facts = sample.facts
        pair = Pair(facts["video_id"], facts["start"], facts["end"], facts["candidates"][0]["text"])
        behind = facts["clip_start"]  # what of the video lies before the clip
        yield pair, windows_of(sample.members["mp4"], pair.start - behind, pair.end - behind, clips, windows=windows)
