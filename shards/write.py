"""Write a shard: a plain tar that any WebDataset reader reads, and its index.

    {key}.mp4                 a clip                   {key}.m4a   its sound, of kind audio
    {key}.jpg                 a picture, of kind image
    {key}.0.jpg, {key}.1.jpg  pictures in the order of their `<image>` places, of kind document
    {key}.2d.npy, {key}.3d.npy, ...   a row a narration, of kind features: float16 (N, D), by the streams' names
    {key}.json                what is known about it, canonical: sorted keys, no spaces

The members of a sample lie beside each other, the JSON last.
The bytes are a function of the samples alone: fixed order, time 0, no owner. The index is read off the finished tar,
so it cannot say anything else than the tar does.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sayso.errors import CorruptObject
from sayso.rows import PLACE, Candidate, PlannedSample, SampleKind
from shards.cut import Clip
from shards.features import ENDING, max_pooled, npy, origin, read_rows

FACTS = "json"
"""The extension of the member that tells what is known of a sample."""

_MEMBER = pa.struct(
    [
        pa.field("extension", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("crc32", pa.int64(), nullable=False),
    ]
)
INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64(), nullable=False),
        pa.field("clip_start", pa.float64(), nullable=False),
        pa.field("clip_end", pa.float64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("members", pa.list_(pa.field("item", _MEMBER, nullable=False)), nullable=False),
    ]
)
"""A row a sample, in the tar's order: its bytes lie in [offset, offset + bytes) of the tar, from the first member's
data to the end of the last's. `extension` is a member's name behind the key and a dot; its offset is its data's, in the
tar. Of a document `video_id` is its id, and the times are 0.
"""


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a tar."""

    key: str
    members: Mapping[str, bytes]
    """By extension, in the tar's order; "json" is the last."""


def sample_of(planned: PlannedSample, clip: Clip, extension: str = "mp4") -> Sample:
    """A planned sample of a video and its clip as they go into the tar."""
    facts = _facts(planned, planned.candidates, clip.start, clip.end)
    return Sample(planned.key, {extension: clip.data, FACTS: canonical_json(facts)})


def sample_of_document(planned: PlannedSample, pictures: Sequence[bytes], kind: SampleKind) -> Sample:
    """A planned sample of a document and its pictures as they go into the tar.

    Of a captioned picture (kind image) the text is the caption, of a document it has a place for each picture.
    """
    (said,) = planned.candidates
    if kind == "image":
        said = said.model_copy(update={"text": said.text.replace(PLACE, "").strip()})
    facts = {**_facts(planned, [said], planned.start, planned.end), "images": len(pictures)}
    names = ["jpg"] if kind == "image" else [f"{number}.jpg" for number in range(len(pictures))]
    return Sample(planned.key, {**dict(zip(names, pictures, strict=True)), FACTS: canonical_json(facts)})


def sample_of_features(planned: PlannedSample, streams: Sequence[bytes]) -> Sample:
    """A planned sample of a video's features as it goes into the tar: of each narration's window the maximum.

    `streams` are the stored objects of `planned.features`. CorruptObject where one is not what the plan says.
    """
    assert planned.windows is not None
    windows = [(window.start, window.end) for window in planned.windows]
    members = {}
    for stream, data in zip(planned.features or (), streams, strict=True):
        rows = read_rows(data, stream.key)
        if rows.shape != (stream.rows, stream.dim):
            raise CorruptObject(f"{stream.key}: {rows.shape} values, planned were {(stream.rows, stream.dim)}")
        members[f"{stream.name}.{ENDING}"] = npy(max_pooled(rows, stream.fps, windows))
    facts = {
        **_facts(planned, planned.candidates, planned.start, planned.end),
        "windows": windows,
        "streams": {stream.name: origin(stream.model, stream.fps) for stream in planned.features or ()},
    }
    return Sample(planned.key, {**dict(sorted(members.items())), FACTS: canonical_json(facts)})


def _facts(planned: PlannedSample, candidates: Sequence[Candidate], begin: float, end: float) -> dict[str, Any]:
    return {
        "video_id": planned.video_id,
        "start": planned.start,
        "end": planned.end,
        "clip_start": begin,
        "clip_end": end,
        "text": candidates[0].text,
        "language": planned.language or None,
        "task_id": planned.task_id,
        "candidates": [candidate.model_dump() for candidate in candidates],
    }


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8: one value, one text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_tar(samples: Iterable[Sample], path: Path) -> None:
    """Write samples to a tar, in the order given."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            for extension, data in sample.members.items():
                _add(tar, f"{sample.key}.{extension}", data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def index_tar(path: Path) -> pa.Table:
    """The index of a finished tar, from reading all of it.

    Raises CorruptObject where it is not a row of whole samples, each of some members and a .json of one key.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            by_key = itertools.groupby(tar, lambda member: member.name.partition(".")[0])
            records = [_record(tar, key, list(members)) for key, members in by_key]
    except (tarfile.TarError, ValueError, KeyError) as error:
        raise CorruptObject(f"{path.name}: not a shard ({error})") from None
    if len({record["key"] for record in records}) < len(records):
        raise CorruptObject(f"{path.name}: not a shard (the members of a sample do not lie beside each other)")
    return pa.Table.from_pylist(records, schema=INDEX_SCHEMA)


def _record(tar: tarfile.TarFile, key: str, files: Sequence[tarfile.TarInfo]) -> dict[str, Any]:
    if len(files) < 2 or files[-1].name != f"{key}.{FACTS}":
        raise ValueError(f"{key} is not a whole sample")
    members = [
        {
            "extension": file.name.removeprefix(f"{key}."),
            "offset": file.offset_data,
            "bytes": file.size,
            "crc32": zlib.crc32(_data(tar, file)),
        }
        for file in files
    ]
    said = json.loads(_data(tar, files[-1]))
    facts = {name: said[name] for name in ("video_id", "start", "end", "clip_start", "clip_end")}
    begin = files[0].offset_data
    size = files[-1].offset_data + files[-1].size - begin
    return {"key": key, **facts, "offset": begin, "bytes": size, "members": members}


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
