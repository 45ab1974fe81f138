"""Write a shard: a plain tar that any WebDataset reader reads, and its index.

    {key}.mp4   the clip
    {key}.json  what is known about it, canonical: sorted keys, no spaces

The bytes are a function of the samples alone: fixed order, time 0, no owner. The index is read off the finished tar,
so it cannot say anything else than the tar does.
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sayso.errors import CorruptObject
from sayso.rows import PlannedSample
from shards.cut import Clip

INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64(), nullable=False),
        pa.field("clip_start", pa.float64(), nullable=False),
        pa.field("clip_end", pa.float64(), nullable=False),
        *(
            pa.field(f"{member}_{fact}", pa.int64(), nullable=False)
            for member in ("mp4", "json")
            for fact in ("offset", "bytes", "crc32")
        ),
    ]
)
"""A row a sample, in the tar's order. Offsets are those of the members' data in the tar, in bytes."""


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a tar."""

    key: str
    clip: bytes
    facts: bytes


def sample_of(planned: PlannedSample, clip: Clip) -> Sample:
    """A planned sample and its clip as they go into the tar."""
    facts = {
        "video_id": planned.video_id,
        "start": planned.start,
        "end": planned.end,
        "clip_start": clip.start,
        "clip_end": clip.end,
        "text": planned.candidates[0].text,
        "language": planned.language,
        "task_id": planned.task_id,
        "candidates": [candidate.model_dump() for candidate in planned.candidates],
    }
    return Sample(planned.key, clip.data, canonical_json(facts))


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8: one value, one text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_tar(samples: Iterable[Sample], path: Path) -> None:
    """Write samples to a tar, in the order given."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            _add(tar, f"{sample.key}.mp4", sample.clip)
            _add(tar, f"{sample.key}.json", sample.facts)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def index_tar(path: Path) -> pa.Table:
    """The index of a finished tar, from reading all of it.

    Raises CorruptObject where it is not a row of whole samples, each an .mp4 and a .json of one key.
    """
    records = []
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
            for clip, facts in zip(members[::2], members[1::2], strict=True):
                records.append(_record(tar, clip, facts))
    except (tarfile.TarError, ValueError, KeyError) as error:
        raise CorruptObject(f"{path.name}: not a shard ({error})") from None
    return pa.Table.from_pylist(records, schema=INDEX_SCHEMA)


def _record(tar: tarfile.TarFile, clip: tarfile.TarInfo, facts: tarfile.TarInfo) -> dict[str, Any]:
    key = clip.name.removesuffix(".mp4")
    if clip.name != f"{key}.mp4" or facts.name != f"{key}.json":
        raise ValueError(f"{clip.name} and {facts.name} are not one sample")
    said = json.loads(_data(tar, facts))
    record = {name: said[name] for name in ("video_id", "start", "end", "clip_start", "clip_end")}
    for kind, member in (("mp4", clip), ("json", facts)):
        record[f"{kind}_offset"] = member.offset_data
        record[f"{kind}_bytes"] = member.size
        record[f"{kind}_crc32"] = zlib.crc32(_data(tar, member))
    return {"key": key, **record}


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name} is not a file")
    data = file.read()
    if len(data) != member.size:
        raise ValueError(f"{member.name} is cut short")
    return data


def write_index(index: pa.Table, path: Path) -> None:
    """Write an index as Parquet; the same index gives the same bytes."""
    pq.write_table(index, path, compression="zstd")
