"""What a checksum does not tell: whether a shard is the tar that its index describes, with media that open."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Literal

import av
import pyarrow as pa
import pyarrow.parquet as pq

from sayso.errors import CorruptObject
from sayso.root import Root
from sayso.rows import Shard
from shards.features import ENDING, read_rows
from shards.write import index_tar


def verify_shard(root: Root, shard: Shard) -> list[str]:
    """What is wrong with a published shard, a line each; empty where nothing is. Reads all of it."""
    try:
        index = pq.read_table(pa.BufferReader(root.storage.read(shard.index_key)))
        with root.storage.local(shard.key) as path:
            return [f"{shard.key}: {problem}" for problem in problems_of_tar(path, index)]
    except FileNotFoundError as error:
        return [f"{shard.shard}: missing object ({error})"]
    except pa.ArrowInvalid as error:
        return [f"{shard.index_key}: not Parquet ({error})"]


def problems_of_tar(path: Path, index: pa.Table) -> list[str]:
    """Where a tar is not what an index says, and which of its clips, sounds, pictures and features do not open."""
    try:
        found = index_tar(path)
    except CorruptObject as error:
        return [str(error)]
    if not found.equals(index):
        return ["the index describes another tar"]
    with tarfile.open(path, "r:") as tar:
        return [problem for member in tar if (problem := _problem_of_member(tar, member))]


_HOLDS: dict[str, Literal["video", "audio"]] = {"mp4": "video", "m4a": "audio", "jpg": "video"}
"""What is decoded of a member to see that it opens: its first picture or its first packet of sound."""


def _problem_of_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    ending = member.name.rpartition(".")[2]
    if ending not in (*_HOLDS, ENDING):
        return None
    file = tar.extractfile(member)
    assert file is not None
    data = file.read()
    if ending == ENDING:
        return _problem_of_rows(member.name, data)
    return _problem_of_media(member.name, data, _HOLDS[ending])


def _problem_of_rows(name: str, data: bytes) -> str | None:
    try:
        read_rows(data, name)
    except CorruptObject as error:
        return str(error)
    return None


def _problem_of_media(name: str, data: bytes, holds: Literal["video", "audio"]) -> str | None:
    try:
        with av.open(io.BytesIO(data), "r") as container:
            if not any(stream.type == holds for stream in container.streams):
                return f"{name}: has no {'picture' if holds == 'video' else 'sound'}"
            next(container.decode(**{holds: 0}))
    except (av.FFmpegError, StopIteration) as error:
        return f"{name}: does not open ({error})"
    return None
