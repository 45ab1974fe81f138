"""How a model sees a clip of a video: through windows of pictures, or through features that were pooled over it.

    a stretch [start, end) of a video -> what the model looks at there -> an embedding (D,)

A protocol says which stretches it asks about; where their pictures or features lie, and how many looks a clip takes, is
the sight's business. So a protocol is the same for all models.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sayso.errors import CorruptObject, InputError
from sayso.rows import Features, FeatureStream
from shards.crop import Crop
from shards.features import ENDING, Rows, max_pooled, origin, read_rows, unit_rows
from shards.library import RawSample
from shards.reader import ClipReader
from train.evaluate.clips import published_crop, trained_crop, usable, window_starts, windows_at
from train.evaluate.embed import EMBEDDING, Embedder
from train.evaluate.pairs import Pair
from train.evaluate.videos import Videos
from train.models.gated import GatedSettings

Span = tuple[float, float]
Look = Callable[[Sequence[Span]], Tensor]
"""Stretches of one video -> the embedding of each (N, D), on the CPU."""
Seen = tuple[Pair, Tensor]
"""A pair, and the embeddings (N, D) of the N stretches that its clip is seen through."""
Progress = Callable[[int, int], None]


class Sight(ABC):
    """One way to see."""

    seconds: float
    """How long a look at one moment lasts."""
    size: int | None = None
    """The side of the pictures that are looked at, in px; none where features are."""

    @abstractmethod
    def fit(self, videos: Videos) -> Videos:
        """The videos of which there is what the model looks at; others are among the missing, with the reason.

        InputError where what is there is of another kind than the model was trained on.
        """

    def looks(self, windows: int) -> int:
        """How many stretches a clip is seen through where `windows` are asked for."""
        return windows

    @abstractmethod
    def stretches(self, start: float, end: float, *, windows: int) -> list[Span]:
        """What of a clip [start, end) is looked at."""

    @abstractmethod
    def open(self, videos: Videos, video_id: str) -> Look:
        """A video, read once to be looked at in many places. CorruptObject names what is broken."""

    @abstractmethod
    def sample(self, sample: RawSample, *, windows: int) -> Iterator[Seen]:
        """The narrations of an export's sample that have a clip of their own there."""


class FrameSight(Sight):
    """A clip is seen through N windows of the model's length, spread evenly over it, each a crop of the middle."""

    def __init__(self, embedder: Embedder, crop: Crop, output: str) -> None:
        self.embedder, self.crop, self.output = embedder, crop, output
        self.seconds, self.size = embedder.clips.seconds, crop.size

    def fit(self, videos: Videos) -> Videos:
        """All of them; proxies with fewer frames a second than the model looks at are refused."""
        videos.check_fps(self.embedder.clips.fps)
        return videos

    def stretches(self, start: float, end: float, *, windows: int) -> list[Span]:
        """The windows."""
        starts = window_starts(start, end, windows=windows, seconds=self.seconds)
        return [(first, first + self.seconds) for first in starts]

    def open(self, videos: Videos, video_id: str) -> Look:
        """Of a stretch its first frames are looked at, as many as the model takes."""
        proxy = videos.read(video_id)

        def look(spans: Sequence[Span]) -> Tensor:
            try:
                return self._look(proxy, [start for start, _ in spans])
            except CorruptObject as error:
                raise videos.broken(video_id, error) from None

        return look

    def sample(self, sample: RawSample, *, windows: int) -> Iterator[Seen]:
        """The sample's anchor narration, seen in its window."""
        facts = sample.facts
        if "mp4" not in sample.members:
            raise InputError(f"{sample.key}: has no video, which the model looks at; evaluate it on an export of clips")
        pair = Pair(facts["video_id"], facts["start"], facts["end"], facts["candidates"][0]["text"])
        behind = facts["clip_start"]  # what of the video lies before the clip
        spans = self.stretches(pair.start - behind, pair.end - behind, windows=windows)
        yield pair, self._look(sample.members["mp4"], [start for start, _ in spans])

    def _look(self, data: bytes, starts: Sequence[float]) -> Tensor:
        return self.embedder.windows(windows_at(data, starts, self.embedder.clips, self.crop), self.output)


class FeatureSight(Sight):
    """A clip is seen at once: each stream of the video's features, pooled over it and of length 1, side by side."""

    seconds = 1.0

    def __init__(self, embedder: Embedder, streams: dict[str, int]) -> None:
        self.embedder, self.streams = embedder, streams
        self.origins = embedder.trained.card.origins

    def fit(self, videos: Videos) -> Videos:
        """The videos whose features are in the root's table."""
        there, missing, names = {}, dict(videos.missing), ", ".join(self.streams)
        for video_id, media in videos.there.items():
            row = videos.features.get(media.video_id)
            if row and self.streams.keys() <= {stream.name for stream in row.streams}:
                there[video_id] = media
                self._check_sizes(row)
                self._check_origins(
                    row.video_id, {stream.name: origin(stream.model, stream.fps) for stream in row.streams}
                )
            else:
                missing[video_id] = f"no features {names}; run `sayso features --root {videos.root.url}`"
        return Videos(videos.root, there, missing)

    def _check_sizes(self, row: Features) -> None:
        for stream in row.streams:
            wanted = self.streams.get(stream.name, stream.dim)
            if stream.dim != wanted:
                raise InputError(
                    f"the features {stream.name} of {row.video_id} have {stream.dim} numbers ({stream.model}) and the "
                    f"model takes {wanted}; they must be those that it was trained on"
                )

    def _check_origins(self, video_id: str, found: dict[str, str]) -> None:
        """Equally many numbers of another model would be taken, and give figures of nothing."""
        for name in self.origins.keys() & found.keys():
            if found[name] != self.origins[name]:
                raise InputError(
                    f"the features {name} of {video_id} are of {found[name]}, and the model was trained on those of "
                    f"{self.origins[name]}; compute them with that"
                )

    def looks(self, windows: int) -> int:
        """One, whatever is asked for."""
        return 1

    def stretches(self, start: float, end: float, *, windows: int) -> list[Span]:
        """The clip itself, whatever the number of windows."""
        return [(start, end)]

    def open(self, videos: Videos, video_id: str) -> Look:
        """Of a stretch the maximum over the rows that stand for a part of it is looked at."""
        row = videos.features[videos.there[video_id].video_id]
        read = [(stream, _read(videos, stream)) for stream in row.streams if stream.name in self.streams]

        def look(spans: Sequence[Span]) -> Tensor:
            return self._look({stream.name: max_pooled(rows, stream.fps, spans) for stream, rows in read})

        return look

    def sample(self, sample: RawSample, *, windows: int) -> Iterator[Seen]:
        """All narrations of the video, each with its row."""
        facts = sample.facts
        members = {name: f"{name}.{ENDING}" for name in self.streams}
        if not sample.members.keys() >= {*members.values()}:
            raise InputError(
                f"{sample.key}: has no features {', '.join(self.streams)}, which the model looks at; evaluate "
                "it on an export of kind features"
            )
        self._check_origins(facts["video_id"], facts.get("streams", {}))
        streams = {name: read_rows(sample.members[member], sample.key) for name, member in members.items()}
        for candidate, embedding in zip(facts["candidates"], self._look(streams), strict=True):
            pair = Pair(facts["video_id"], candidate["start"], candidate["end"], candidate["text"])
            yield pair, embedding[None]

    def _look(self, streams: dict[str, Rows]) -> Tensor:
        every = np.arange(len(next(iter(streams.values()))))
        return self.embedder.features(torch.from_numpy(unit_rows(streams, every)))


def _read(videos: Videos, stream: FeatureStream) -> Rows:
    try:
        return read_rows(videos.root.storage.read(stream.key), stream.key)
    except (FileNotFoundError, CorruptObject) as error:
        raise CorruptObject(f"{stream.key}: {error}; run `sayso verify`") from None


def sight_of(embedder: Embedder, *, published: bool = True, output: str = EMBEDDING) -> Sight:
    """How an embedder's model sees.

    With `published` the whole middle square of a picture is looked at, as the published protocols do, else the middle
    of what was seen in training. `output` is what of the video tower's outputs is taken; InputError where it has none.
    """
    settings = embedder.trained.card.model
    if isinstance(settings, GatedSettings):
        if output != EMBEDDING:
            raise InputError(f"a {settings.name} model has no {output}; what asks for it measures a tower over frames")
        return FeatureSight(embedder, settings.streams)
    crop = published_crop if published else trained_crop
    return FrameSight(embedder, crop(embedder.clips), output)


def seen_in_root(pairs: Sequence[Pair], videos: Videos, sight: Sight, *, windows: int) -> Iterator[Seen]:
    """Each usable pair with what is seen of its clip; a video is read once. CorruptObject names a broken one."""
    by_video: dict[str, list[Pair]] = defaultdict(list)
    for pair in usable(pairs, videos):
        by_video[pair.video_id].append(pair)
    for video_id, own in by_video.items():
        look, duration = sight.open(videos, video_id), videos.there[video_id].duration
        for pair in own:
            yield pair, look(sight.stretches(pair.start, min(pair.end, duration), windows=windows))


def counted(seen: Iterator[Seen], total: int, progress: Progress) -> Iterator[Seen]:
    """The same, with `progress(done, total)` called for each."""
    for done, each in enumerate(seen, start=1):
        progress(done, total)
        yield each


def seen_in_export(reader: ClipReader, sight: Sight, *, windows: int, progress: Progress) -> Iterator[Seen]:
    """What is seen of the samples of a split; `progress(done, total)` counts samples."""
    for done, sample in enumerate(reader.raw(), start=1):
        yield from sight.sample(sample, windows=windows)
        progress(done, reader.samples)
