"""What an export consists of, as a reader sees it: one Parquet object with a row a shard, read as columns.

    manifest.parquet   shard, split, samples, videos, seconds, bytes, sha256, index_bytes, index_sha256, shared
    {shard}.tar, {shard}.index.parquet

Names are relative to the manifest. `shared` tells of the few videos whose samples lie in several shards, so that an
epoch of one clip a video can count them once: their place among this shard's videos, sorted, the samples in this shard,
and a number that is the same wherever the video is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
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
_SHARED = pa.struct([pa.field(name, pa.int32(), nullable=False) for name in ("place", "samples", "number")])
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
ROWS = 4096
"""Rows of a row group: readers decode so many at once, and want room for no more than what they keep."""
_COLUMNS = ["shard", "samples", "videos", "bytes", "sha256"]


class SharedVideos:
    """The videos of a split that lie in several shards."""

    def __init__(self, pieces: Sequence[pa.ListArray]) -> None:
        """`pieces` are the column `shared` of the split's shards."""
        counts = np.concatenate([np.diff(piece.offsets.to_numpy()) for piece in pieces])
        flat = [_flat(piece) for piece in pieces]
        self._place, self._samples, self._number = (
            np.concatenate([piece.field(name).to_numpy() for piece in flat]) for name in ("place", "samples", "number")
        )
        self._ends = np.cumsum(counts)
        self._by_video = np.argsort(self._number, kind="stable").astype(np.int32)

    def of_shard(self, shard: int) -> dict[int, int]:
        """Of the videos of a shard that lie in others too: their places among its videos, and their numbers."""
        rows = slice(int(self._ends[shard - 1]) if shard else 0, int(self._ends[shard]))
        return dict(zip(self._place[rows].tolist(), self._number[rows].tolist(), strict=True))

    def places(self, number: int) -> list[tuple[int, int]]:
        """Of a video: its shards, and the samples in each."""
        begin, end = np.searchsorted(self._number, [number, number + 1], sorter=self._by_video)
        rows = self._by_video[begin:end]
        return list(zip(self._shards(rows).tolist(), self._samples[rows].tolist(), strict=True))

    def counted_elsewhere(self, shards: int) -> Ints:
        """Of each shard, how many of its videos are counted in an earlier one."""
        numbers = self._number[self._by_video]
        again = np.flatnonzero(numbers[1:] == numbers[:-1]) + 1
        return np.bincount(self._shards(self._by_video[again]), minlength=shards).astype(np.int64)

    def _shards(self, rows: npt.NDArray[np.int32]) -> Ints:
        return np.searchsorted(self._ends, rows, side="right")


def _flat(lists: pa.ListArray) -> pa.StructArray:
    offsets = lists.offsets
    begin, end = offsets[0].as_py(), offsets[-1].as_py()
    return lists.values.slice(begin, end - begin)


@dataclass(frozen=True)
class Manifest:
    """One split of an export, its shards numbered from 0."""

    names: pa.ChunkedArray
    samples: Ints
    videos: Ints
    bytes: Ints
    sha256: pa.ChunkedArray
    shared: SharedVideos | None
    """None where it was not read."""
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
        assert self.shared is not None
        return self.videos - self.shared.counted_elsewhere(len(self.videos))


def read_manifest(storage: Storage, split: str, *, shared: bool = True) -> Manifest:
    """The manifest of a split, `shared` videos in it or not. InputError where there is no export or no such split."""
    try:
        # Locally a part at a time; of a remote store in one request.
        source = storage.open(NAME) if storage.is_local else io.BytesIO(storage.read(NAME))
    except FileNotFoundError:
        raise InputError(
            f"{storage.url}: no {NAME} here; give <root>/shards/<export>, `sayso shard` makes it"
        ) from None
    try:
        # Not pq.read_table, which brings the whole of Arrow's data sets into memory.
        with source, pq.ParquetFile(source) as file:
            facts = json.loads(file.schema_arrow.metadata[FACTS])
            _check(facts, split, storage.url)
            return _manifest(file, facts["splits"], split, [*_COLUMNS, *(["shared"] if shared else [])])
    except (pa.ArrowException, OSError, TypeError, KeyError, ValueError):
        raise InputError(f"{storage.url}/{NAME}: not a manifest; `sayso shard` writes it anew") from None


def _check(facts: dict[str, Any], split: str, url: str) -> None:
    if facts["format"] != FORMAT:
        raise InputError(f"{url}/{NAME}: format {facts['format']}, this sayso reads {FORMAT}")
    if split not in facts["splits"]:
        raise InputError(f"{url}: no split {split!r} (there are: {', '.join(facts['splits']) or 'none'})")


def _manifest(file: pq.ParquetFile, splits: dict[str, Any], split: str, columns: list[str]) -> Manifest:
    """Rows lie in the order of (split, shard), so that those of a split are a range."""
    begin = sum(splits[before]["shards"] for before in splits if before < split)
    end = begin + splits[split]["shards"]
    pieces = []
    for group in range(begin // ROWS, -(-end // ROWS)):
        piece = file.read_row_group(group, columns, use_threads=False)
        first = max(begin - group * ROWS, 0)
        pieces.append(piece.slice(first, min(end - group * ROWS, ROWS) - first))
    found = {name: [chunk for piece in pieces for chunk in piece[name].chunks] for name in columns}
    return Manifest(
        names=pa.chunked_array(found["shard"]),
        samples=np.concatenate(found["samples"]),
        videos=np.concatenate(found["videos"]),
        bytes=np.concatenate(found["bytes"]),
        sha256=pa.chunked_array(found["sha256"]),
        shared=SharedVideos(found["shared"]) if "shared" in found else None,
        digest=splits[split]["digest"],
    )
