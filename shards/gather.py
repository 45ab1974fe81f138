"""What planning reads of the tables: only the columns that it needs, in pieces, never whole tables as models."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sayso.root import Root
from sayso.rows import Document, Features, FeatureStream, Forgotten, Media, Narration, Plan, StoredObject, Video


class Film(NamedTuple):
    """A fetched video: `width` is 0 where there is sound only, `source_sha256` is of the bytes as they came.

    `features` tells whether table features has it, where somebody asked.
    """

    duration: float
    width: int
    bytes: int
    source_sha256: str
    audio: bool
    task_id: str | None = None
    features: bool = False


class Anchor(NamedTuple):
    """A kept narration without its words: enough to know whether it is planned, and whether it can be."""

    narration_id: str
    video_id: str
    start: float


class Written(NamedTuple):
    """A document: its text with `<image>` places, and its pictures in their order."""

    document_id: str
    text: str
    images: list[StoredObject]
    lost: list[str]
    language: str | None = None
    task_id: str | None = None


class Said(NamedTuple):
    """A kept narration."""

    narration_id: str
    video_id: str
    start: float
    end: float
    text: str
    language: str
    confidence: float | None = None


@dataclass
class Planned:
    """What an export holds already: sample keys, videos, and of each split the number of its next shard."""

    keys: set[str] = field(default_factory=set)
    videos: set[str] = field(default_factory=set)
    next_number: dict[str, int] = field(default_factory=dict)


def films(root: Root, *, features: bool = False) -> dict[str, Film]:
    """All fetched videos by id, but those of the same bytes as one that was forgotten.

    Whether there are features of them is looked up where `features` says so.
    """
    seen = frozenset(root.table(Features).keys().to_pylist()) if features else frozenset()
    forgotten = set(root.table(Forgotten).read(["source_sha256"])["source_sha256"].to_pylist()) - {None}
    task_of = {}
    for piece in root.table(Video).stream(["video_id", "task_id"]):
        task_of.update({video: task for video, task in _records(piece) if task is not None})
    found = {}
    for piece in root.table(Media).stream(["video_id", "duration", "width", "bytes", "audio", "source"]):
        digests = pc.struct_field(piece["source"], "sha256").to_pylist()
        for (video, duration, width, size, audio), digest in zip(
            _records(piece.drop_columns(["source"])), digests, strict=True
        ):
            if digest not in forgotten:
                found[video] = Film(duration, width, size, digest, audio, task_of.get(video), video in seen)
    return found


def planned(root: Root, export: str) -> Planned:
    """What is planned of an export."""
    found = Planned()
    for piece in root.table(Plan).stream(["shard", "split", "samples"], export=export):
        samples = pc.list_flatten(piece["samples"])
        found.keys.update(pc.struct_field(samples, "key").to_pylist())
        found.videos.update(pc.unique(pc.struct_field(samples, "video_id")).to_pylist())
        for shard, split in _records(piece.drop_columns(["samples"])):
            number = int(shard.rpartition("-")[2])
            found.next_number[split] = max(found.next_number.get(split, 0), number + 1)
    return found


def anchors(root: Root, version: int) -> Iterator[Anchor]:
    """The kept narrations of the table's `version`, without their words."""
    for piece in root.table(Narration).stream(list(Anchor._fields), version, kept=True):
        yield from map(Anchor._make, _records(piece))


def said(root: Root, version: int, video_ids: Collection[str]) -> Iterator[Said]:
    """The kept narrations of these videos in the table's `version`; the table is read once, however many they are."""
    if not video_ids:
        return
    for piece in root.table(Narration).stream(list(Said._fields), version, kept=True):
        wanted = pa.array([video in video_ids for video in piece["video_id"].to_pylist()], pa.bool_())
        yield from map(Said._make, _records(piece.filter(wanted)))


def features(root: Root, video_ids: Collection[str]) -> dict[str, list[FeatureStream]]:
    """The streams of features of these videos, by video, as far as there are any."""
    return {row.video_id: row.streams for row in root.table(Features).rows(video_id=video_ids)}


def documents(root: Root, version: int, ids: Collection[str] | None = None) -> Iterator[Written]:
    """The documents of the table's `version`: all, or those with these ids; the table is read once for either."""
    wanted = None if ids is None else frozenset(ids)
    for piece in root.table(Document).stream(list(Written._fields), version):
        for document, text, images, *rest in _records(piece):
            if wanted is None or document in wanted:
                stored = [StoredObject(key=i["key"], sha256=i["sha256"], bytes=i["bytes"]) for i in images]
                yield Written(document, text, stored, *rest)


def _records(piece: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in piece.columns), strict=True)
