"""What an export consists of, as a reader sees it: one Parquet object with a row a shard, read as columns.

    manifest.parquet   shard, split, samples, videos, seconds, bytes, sha256, index_bytes, index_sha256, shared
    {shard}.tar, {shard}.index.parquet

Names are relative to the manifest. `shared` names the few videos whose samples lie in more than one shard, with the
samples in this one, so that an epoch of one clip a video can count them once; `number` is the same wherever a video is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sayso.errors import InputError
from sayso.storage import Storage
from shards.order import Ints

FORMAT = 3
NAME = "manifest.parquet"
SUMMARY = "manifest.json"
FACTS = b"sayso"
"""Where the table's metadata holds the summary: format, export, and of each split the totals and a digest."""

_DIGEST = pa.binary(32)
_SHARED = pa.struct(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("videos", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", _DIGEST, nullable=False),
        pa.field("index_bytes", pa.int64(), nullable=False),
        pa.field("index_sha256", _DIGEST, nullable=False),
        pa.field("shared", pa.list_(pa.field("item", _SHARED, nullable=False)), nullable=False),
    ]
)
# What a reader takes of it.
_COLUMNS = ["shard", "split", "samples", "videos", "bytes", "sha256", "shared"]


class SharedVideos:
    """The videos of a split that lie in several shards."""

    def __init__(self, lists: pa.ListArray) -> None:
        """`lists` are the column `shared` of the split's shards."""
        counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        flat = lists.flatten()
        self._ends = np.concatenate([[0], np.cumsum(counts)])
        self._names = flat.field("video_id")
        self._samples = flat.field("samples").to_numpy()
        self._numbers = flat.field("number").to_numpy()
        self._shards = np.repeat(np.arange(len(counts)), counts)
        self._by_video = np.argsort(self._numbers, kind="stable")
        self._sorted = self._numbers[self._by_video]

    def of_shard(self, shard: int) -> dict[str, int]:
        """The numbers of the videos of a shard that lie in others too."""
        begin, end = self._ends[shard], self._ends[shard + 1]
        names = self._names[begin:end].to_pylist()
        return dict(zip(names, self._numbers[begin:end].tolist(), strict=True))

    def places(self, number: int) -> list[tuple[int, int]]:
        """Of a video: its shards, and the samples in each."""
        begin, end = np.searchsorted(self._sorted, [number, number + 1])
        rows = self._by_video[begin:end]
        return list(zip(self._shards[rows].tolist(), self._samples[rows].tolist(), strict=True))

    def counted_elsewhere(self, shards: int) -> Ints:
        """Of each shard, how many of its videos are counted in an earlier one."""
        first = np.ones(len(self._sorted), dtype=bool)
        first[1:] = self._sorted[1:] != self._sorted[:-1]
        return np.bincount(self._shards[self._by_video[~first]], minlength=shards).astype(np.int64)


@dataclass(frozen=True)
class Manifest:
    """One split of an export, its shards numbered from 0."""

    names: pa.StringArray
    samples: Ints
    videos: Ints
    bytes: Ints
    sha256: pa.FixedSizeBinaryArray
    shared: SharedVideos
    digest: str
    """Of all that makes the split what it is: its shards, their samples and their bytes."""

    def tar(self, shard: int) -> str:
        """The key of a shard's tar."""
        return f"{self.names[shard].as_py()}.tar"

    def index(self, shard: int) -> str:
        """The key of a shard's index."""
        return f"{self.names[shard].as_py()}.index.parquet"

    @cached_property
    def owned(self) -> Ints:
        """Videos of each shard, one that lies in several counted in the first of them only."""
        return self.videos - self.shared.counted_elsewhere(len(self.videos))


def read_manifest(storage: Storage, split: str) -> Manifest:
    """The manifest of a split. InputError where there is no export or no such split."""
    facts, table = _read(storage)
    if split not in facts["splits"]:
        raise InputError(f"{storage.url}: no split {split!r} (there are: {', '.join(facts['splits']) or 'none'})")
    table = table.filter(pc.equal(table["split"], split)).combine_chunks()
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    return Manifest(
        names=columns["shard"],
        samples=columns["samples"].to_numpy(),
        videos=columns["videos"].to_numpy(),
        bytes=columns["bytes"].to_numpy(),
        sha256=columns["sha256"],
        shared=SharedVideos(columns["shared"]),
        digest=facts["splits"][split]["digest"],
    )


def _read(storage: Storage) -> tuple[dict[str, Any], pa.Table]:
    try:
        data = storage.read(NAME)
    except FileNotFoundError:
        raise InputError(
            f"{storage.url}: no {NAME} here; give <root>/shards/<export>, `sayso shard` makes it"
        ) from None
    try:
        # Not pq.read_table, which brings the whole of Arrow's data sets into memory.
        file = pq.ParquetFile(pa.BufferReader(data))
        facts = json.loads(file.schema_arrow.metadata[FACTS])
        if facts["format"] != FORMAT:
            raise InputError(f"{storage.url}/{NAME}: format {facts['format']}, this sayso reads {FORMAT}")
        return facts, file.read(_COLUMNS)
    except (pa.ArrowException, OSError, TypeError, KeyError, ValueError):
        raise InputError(f"{storage.url}/{NAME}: not a manifest; `sayso shard` writes it anew") from None
