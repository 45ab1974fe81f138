"""What a reader knows of an export: its manifest, and the indexes of the shards in use. Plain files, no tables.

Any sample is one range read: its clip and its JSON lie side by side in the tar.
"""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sayso.errors import CorruptObject
from sayso.storage import Storage
from shards.contents import Manifest
from shards.order import Ints


@dataclass(frozen=True)
class RawSample:
    """A sample as it was read: its files by extension ("mp4", "jpg", ...), and its JSON, parsed."""

    key: str
    members: Mapping[str, bytes]
    facts: dict[str, Any]


class ShardIndex:
    """The index of one shard in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @cached_property
    def rows_of_video(self) -> dict[str, Ints]:
        """The rows of each video, in the tar's order; videos sorted."""
        videos = np.asarray(self._table["video_id"].to_numpy(), dtype=np.str_)
        names, inverse = np.unique(videos, return_inverse=True)
        return {str(name): np.flatnonzero(inverse == i) for i, name in enumerate(names)}

    def row(self, number: int) -> dict[str, Any]:
        """One row, as a mapping."""
        return {name: self._table[name][number].as_py() for name in self._table.column_names}


class Library:
    """Reads samples of a split. Not shared between processes; keeps the indexes of `keep` shards."""

    def __init__(self, storage: Storage, manifest: Manifest, keep: int) -> None:
        self._storage = storage
        self._manifest = manifest
        self._keep = keep
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._owned: OrderedDict[int, list[str]] = OrderedDict()

    def index(self, shard: int) -> ShardIndex:
        """The index of a shard. CorruptObject where it is missing or not an index."""
        if shard not in self._indexes:
            self._indexes[shard] = self._read_index(shard)
            if len(self._indexes) > self._keep:
                self._owned.pop(self._indexes.popitem(last=False)[0], None)
        self._indexes.move_to_end(shard)
        return self._indexes[shard]

    def _read_index(self, shard: int) -> ShardIndex:
        key = self._manifest.index(shard)
        try:
            table = pq.read_table(pa.BufferReader(self._storage.read(key)))
        except FileNotFoundError:
            raise CorruptObject(f"{key}: missing") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise CorruptObject(f"{key}: not an index ({error})") from None
        if table.num_rows != self._manifest.samples[shard]:
            raise CorruptObject(f"{key}: {table.num_rows} samples, the manifest says {self._manifest.samples[shard]}")
        return ShardIndex(table)

    def owned_videos(self, shard: int) -> list[str]:
        """The videos that are counted in a shard, sorted."""
        index = self.index(shard)
        if shard not in self._owned:
            shared = self._manifest.shared
            elsewhere = {v for v, number in shared.of_shard(shard).items() if shared.places(number)[0][0] != shard}
            self._owned[shard] = [v for v in index.rows_of_video if v not in elsewhere]
        return self._owned[shard]

    def clip_of_video(self, shard: int, video: str, share: float) -> tuple[int, int]:
        """The clip at `share` in [0, 1) of a video's clips, over all shards that hold it: (shard, row)."""
        shared = self._manifest.shared
        number_of = shared.of_shard(shard).get(video)
        own = len(self.index(shard).rows_of_video[video])
        places = [(shard, own)] if number_of is None else shared.places(number_of)
        number = int(share * sum(samples for _, samples in places))
        for place, samples in places:
            if number < samples:
                return place, int(self.index(place).rows_of_video[video][number])
            number -= samples
        raise AssertionError("share is below 1")

    def video_ids(self) -> Iterator[str]:
        """All videos of the split; reads every index."""
        for shard in range(len(self._manifest.samples)):
            yield from self.owned_videos(shard)

    def read(self, shard: int, row: int) -> RawSample:
        """One sample, by one range read. CorruptObject where its bytes are not those that were indexed."""
        at = self.index(shard).row(row)
        tar, begin = self._manifest.tar(shard), at["offset"]
        data = self._range(tar, begin, begin + at["bytes"])
        members = {}
        for member in at["members"]:
            first = member["offset"] - begin
            members[member["extension"]] = part = data[first : first + member["bytes"]]
            if len(part) != member["bytes"] or zlib.crc32(part) != member["crc32"]:
                raise CorruptObject(f"{tar}: sample {at['key']} is not what its index says")
        return RawSample(at["key"], members, json.loads(members.pop("json")))

    def _range(self, key: str, begin: int, end: int) -> bytes:
        try:
            if not self._storage.is_local:
                return self._storage.read(key, begin, end)
            with Path(self._storage.path(key)).open("rb", buffering=0) as file:
                file.seek(begin)
                return file.read(end - begin)
        except FileNotFoundError:
            raise CorruptObject(f"{key}: missing") from None
