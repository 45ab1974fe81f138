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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sayso.errors import InputError
from sayso.storage import Storage
from shards.order import Ints

Counts = npt.NDArray[np.int32]
Number = TypeVar("Number", np.int32, np.int64)

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
_SharedPiece: TypeAlias = "tuple[npt.NDArray[np.int32], ...]"
"""Of some shards: how many shared videos each has, and place, samples and number of all of these."""
_COLUMNS = ["shard", "samples", "bytes"]


class SharedVideos:
    """The videos of a split that lie in several shards."""

    def __init__(self, pieces: Sequence[_SharedPiece], videos: Counts) -> None:
        """`pieces` are the column `shared` of the split's shards, in their order, `videos` how many each holds."""
        counts, self._place, self._samples, self._number = (np.concatenate(part) for part in zip(*pieces, strict=True))
        self._ends = np.cumsum(counts, dtype=np.int32)
        self._by_video = np.argsort(self._number, kind="stable").astype(np.int32)
        self._videos = videos

    @cached_property
    def owned(self) -> Counts:
        """Videos of each shard, one that lies in several counted in the first of them only."""
        elsewhere = self._counted_elsewhere(len(self._videos))
        return np.subtract(self._videos, elsewhere, out=elsewhere)

    def of_shard(self, shard: int) -> dict[int, int]:
        """Of the videos of a shard that lie in others too: their places among its videos, and their numbers."""
        rows = slice(int(self._ends[shard - 1]) if shard else 0, int(self._ends[shard]))
        return dict(zip(self._place[rows].tolist(), self._number[rows].tolist(), strict=True))

    def places(self, number: int) -> list[tuple[int, int]]:
        """Of a video: its shards, and the samples in each."""
        begin, end = np.searchsorted(self._number, [number, number + 1], sorter=self._by_video)
        rows = self._by_video[begin:end]
        return list(zip(self._shards(rows).tolist(), self._samples[rows].tolist(), strict=True))

    def _counted_elsewhere(self, shards: int) -> Counts:
        """Of each shard, how many of its videos are counted in an earlier one."""
        counted = np.zeros(shards, np.int32)
        for begin in range(1, len(self._by_video), ROWS):  # what it takes besides stays small
            rows = self._by_video[begin - 1 : begin + ROWS]
            numbers = self._number[rows]
            np.add.at(counted, self._shards(rows[1:][numbers[1:] == numbers[:-1]]), 1)
        return counted

    def _shards(self, rows: npt.NDArray[np.int32]) -> Ints:
        return np.searchsorted(self._ends, rows, side="right")


def _shared_piece(lists: pa.ListArray) -> _SharedPiece:
    offsets = lists.offsets.to_numpy()
    flat = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    return np.diff(offsets), *(flat.field(name).to_numpy().copy() for name in ("place", "samples", "number"))


@dataclass(frozen=True)
class Manifest:
    """One split of an export, its shards numbered from 0."""

    names: pa.ChunkedArray
    samples: Counts
    bytes: Ints
    sha256: pa.ChunkedArray | None
    """Of remote stores only: what tars are called in the cache."""
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

    @property
    def owned(self) -> Counts:
        """Videos of each shard, one that lies in several counted in the first of them only."""
        assert self.shared is not None
        return self.shared.owned


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
        with _frugal(), source, pq.ParquetFile(source) as file:
            facts = json.loads(file.schema_arrow.metadata[FACTS])
            _check(facts, split, storage.url)
            wanted = {"sha256": not storage.is_local, "shared": shared}
            columns = [*_COLUMNS, *(name for name, asked in wanted.items() if asked)]
            return _manifest(file, facts["splits"], split, columns)
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

    def column(name: str) -> Iterator[Any]:
        for group in range(begin // ROWS, -(-end // ROWS)):
            first = max(begin - group * ROWS, 0)
            rows = file.read_row_group(group, [name], use_threads=False)[name]
            yield from rows.slice(first, min(end - group * ROWS, ROWS) - first).chunks

    def numbers(name: str, kind: type[Number]) -> npt.NDArray[Number]:
        found, at = np.empty(end - begin, kind), 0
        for chunk in column(name):
            found[at : at + len(chunk)] = chunk.to_numpy()
            at += len(chunk)
        return found

    # Column by column, and what is not text is copied out of Arrow's memory at once: what reading takes besides what
    # is kept is a piece of one column.
    samples, sizes, shared = numbers("samples", np.int32), numbers("bytes", np.int64), None
    if "shared" in columns:
        videos = numbers("videos", np.int32)
        shared = SharedVideos([_shared_piece(chunk) for chunk in column("shared")], videos)
    return Manifest(
        names=pa.chunked_array(column("shard")),
        samples=samples,
        bytes=sizes,
        sha256=pa.chunked_array(column("sha256")) if "sha256" in columns else None,
        shared=shared,
        digest=splits[split]["digest"],
    )


@contextmanager
def _frugal() -> Iterator[None]:
    """Within it Arrow takes its memory from the system's own allocator, which keeps less of it than Arrow's.

    For all threads; each piece of memory goes back to where it came from.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
