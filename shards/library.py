"""Reads samples of a split by their places: the indexes of the shards in use, and one range of a tar a sample."""

from __future__ import annotations

import json
import threading
import zlib
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sayso.storage import Storage
from shards.broken import BrokenSample
from shards.contents import Manifest, SharedVideos
from shards.order import Ints
from shards.tars import Tars

_FACTS = "json"
_COLUMNS = ["key", "video_id", "offset", "bytes", "members"]


class RawSample:
    """A sample as it was read: its key, its files by extension ("mp4", "jpg", ...), and its JSON as `facts`."""

    def __init__(self, key: str, members: Mapping[str, bytes], facts: dict[str, Any] | bytes) -> None:
        """`facts` given as text are parsed when they are first asked for."""
        self.key, self.members = key, members
        self._facts = facts

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the sample. BrokenSample where it is not JSON."""
        if isinstance(self._facts, bytes):
            try:
                self._facts = dict(json.loads(self._facts))
            except ValueError:
                raise BrokenSample("bad_json", f"sample {self.key}: its facts are not JSON") from None
        return self._facts


class ShardIndex:
    """The index of one shard in memory, as columns."""

    def __init__(self, table: pa.Table, tar_bytes: int) -> None:
        """Raises KeyError, ValueError or an error of Arrow where it is not the index of a tar of so many bytes."""
        table = table.combine_chunks()
        self._keys, self._videos = table["key"].combine_chunks(), table["video_id"].combine_chunks()
        self._begins = table["offset"].to_numpy()
        self._ends = self._begins + table["bytes"].to_numpy()
        members = table["members"].combine_chunks()
        self._first = members.offsets.to_numpy().astype(np.int64)
        flat = members.values
        extensions = flat.field("extension").dictionary_encode()
        self._names = extensions.dictionary.to_pylist()
        self._extensions = extensions.indices.to_numpy()
        self._offsets, self._sizes = flat.field("offset").to_numpy(), flat.field("bytes").to_numpy()
        self._crcs = flat.field("crc32").to_numpy()
        self._check(tar_bytes)
        self._twice = self._repeated()

    def _check(self, tar_bytes: int) -> None:
        of_row = np.repeat(np.arange(len(self._begins)), np.diff(self._first))
        fits = [
            (self._begins >= 0).all(),
            (self._ends <= tar_bytes).all(),
            (self._sizes >= 0).all(),
            (self._offsets >= self._begins[of_row]).all(),
            (self._offsets + self._sizes <= self._ends[of_row]).all(),
        ]
        if not all(fits):
            raise ValueError("places outside the tar")

    def _repeated(self) -> frozenset[int]:
        """The rows whose key an earlier row has."""
        first: dict[str, int] = {}
        keys = self._keys.to_pylist()
        return frozenset(row for row, key in enumerate(keys) if first.setdefault(key, row) != row)

    @cached_property
    def rows_of_video(self) -> dict[str, Ints]:
        """The rows of each video, in the tar's order; videos sorted."""
        encoded = self._videos.dictionary_encode()
        rows = np.argsort(encoded.indices.to_numpy(), kind="stable")
        ends = np.cumsum(np.bincount(encoded.indices.to_numpy()))
        groups = dict(zip(encoded.dictionary.to_pylist(), np.split(rows, ends[:-1]), strict=True))
        return dict(sorted(groups.items()))

    def span(self, row: int) -> tuple[int, int]:
        """Where a sample lies in the tar: [begin, end)."""
        return int(self._begins[row]), int(self._ends[row])

    def sample(self, row: int, data: bytes, tar: str) -> RawSample:
        """The sample of a row, from its bytes. BrokenSample where they are not those that were indexed."""
        key, begin = self._keys[row].as_py(), int(self._begins[row])
        if row in self._twice:
            raise BrokenSample("repeated_key", f"{tar}: the key {key} comes twice")
        if len(data) < int(self._ends[row]) - begin:
            raise BrokenSample("short_tar", f"{tar}: ends within sample {key}")
        members, facts = {}, b""
        for member in range(self._first[row], self._first[row + 1]):
            first = int(self._offsets[member]) - begin
            part = data[first : first + int(self._sizes[member])]
            if zlib.crc32(part) != self._crcs[member]:
                raise BrokenSample("checksum", f"{tar}: sample {key} is not what its index says")
            extension = self._names[self._extensions[member]]
            if extension == _FACTS:
                facts = part
            else:
                members[extension] = part
        return RawSample(key, members, facts)


class _Shelf:
    """A place for one index, read by whoever comes first; that it is broken is remembered too."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.index: ShardIndex | BrokenSample | None = None


class Library:
    """Reads samples of a split, from any thread of one process; keeps the indexes of `keep` shards."""

    def __init__(self, storage: Storage, manifest: Manifest, tars: Tars, keep: int) -> None:
        self.manifest, self.tars = manifest, tars
        self._storage, self._keep = storage, keep
        self._lock = threading.Lock()
        self._shelves: OrderedDict[int, _Shelf] = OrderedDict()
        self._owned: dict[int, list[str]] = {}

    def index(self, shard: int) -> ShardIndex:
        """The index of a shard. BrokenSample where it is missing or not an index."""
        shelf = self._shelf(shard)
        with shelf.lock:
            if shelf.index is None:
                shelf.index = self._read_index(shard)
            found = shelf.index
        if isinstance(found, BrokenSample):
            raise BrokenSample(found.kind, str(found))
        return found

    def _shelf(self, shard: int) -> _Shelf:
        with self._lock:
            shelf = self._shelves.setdefault(shard, _Shelf())
            self._shelves.move_to_end(shard)
            if len(self._shelves) > self._keep:
                self._owned.pop(self._shelves.popitem(last=False)[0], None)
            return shelf

    def _read_index(self, shard: int) -> ShardIndex | BrokenSample:
        key, samples = self.manifest.index(shard), self.manifest.samples[shard]
        try:
            data = self._storage.read(key)
        except FileNotFoundError:
            return BrokenSample("missing_index", f"{key}: missing")
        try:
            table = pq.ParquetFile(pa.BufferReader(data)).read(_COLUMNS)
            if table.num_rows != samples:
                return BrokenSample("bad_index", f"{key}: {table.num_rows} samples, the manifest says {samples}")
            return ShardIndex(table, int(self.manifest.bytes[shard]))
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            return BrokenSample("bad_index", f"{key}: not an index ({error})")

    def owned_videos(self, shard: int) -> list[str]:
        """The videos that are counted in a shard, sorted. BrokenSample where the manifest counts others."""
        index = self.index(shard)
        if shard not in self._owned:
            shared = self._shared
            elsewhere = {place for place, of in shared.of_shard(shard).items() if shared.places(of)[0][0] != shard}
            owned = [video for place, video in enumerate(index.rows_of_video) if place not in elsewhere]
            if len(owned) != self.manifest.owned[shard]:
                key = self.manifest.index(shard)
                raise BrokenSample("bad_index", f"{key}: {len(owned)} videos, not {self.manifest.owned[shard]}")
            self._owned[shard] = owned
        return self._owned[shard]

    @property
    def _shared(self) -> SharedVideos:
        assert self.manifest.shared is not None, "read without"
        return self.manifest.shared

    def clip_of_video(self, shard: int, video: str, share: float) -> tuple[int, int]:
        """The clip at `share` in [0, 1) of a video's clips, over all shards that hold it: (shard, row)."""
        own = self.index(shard).rows_of_video
        number_of = self._shared.of_shard(shard).get(bisect_left(list(own), video))
        places = [(shard, len(own[video]))] if number_of is None else self._shared.places(number_of)
        number = int(share * sum(samples for _, samples in places))
        for place, samples in places:
            if number < samples:
                return place, self._row_of_video(place, video, number)
            number -= samples
        raise AssertionError("share is below 1")

    def _row_of_video(self, shard: int, video: str, number: int) -> int:
        rows = self.index(shard).rows_of_video.get(video, ())
        if number >= len(rows):
            raise BrokenSample("bad_index", f"{self.manifest.index(shard)}: fewer clips of {video} than there were")
        return int(rows[number])

    def video_ids(self) -> Iterator[str]:
        """All videos of the split; reads every index."""
        seen: set[str] = set()
        for shard in range(len(self.manifest.samples)):
            new = self.index(shard).rows_of_video.keys() - seen
            seen |= new
            yield from new

    def read(self, shard: int, row: int) -> RawSample:
        """One sample. BrokenSample where it cannot be had, or its bytes are not those that were indexed."""
        index, tar = self.index(shard), self.manifest.tar(shard)
        begin, end = index.span(row)
        data = self.tars.read(shard, begin, end)
        try:
            return index.sample(row, data, tar)
        except BrokenSample:
            afresh = self.tars.read_afresh(shard, begin, end)
            if afresh == data:
                raise
        self.tars.forget(shard)
        return index.sample(row, afresh, tar)
