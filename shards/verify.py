"""What a checksum does not tell: whether a shard is the tar that its index describes, with clips that open."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import av
import pyarrow as pa
import pyarrow.parquet as pq

from sayso.errors import CorruptObject
from sayso.root import Root
from sayso.rows import Shard
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
    """Where a tar is not what an index says, and which of its clips do not open."""
    try:
        found = index_tar(path)
    except CorruptObject as error:
        return [str(error)]
    if not found.equals(index):
        return ["the index describes another tar"]
    with tarfile.open(path, "r:") as tar:
        clips = [member for member in tar if member.name.endswith(".mp4")]
        return [problem for member in clips if (problem := _problem_of_clip(tar, member))]


def _problem_of_clip(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str | None:
    file = tar.extractfile(member)
    assert file is not None
    try:
        with av.open(io.BytesIO(file.read()), "r") as container:
            if not container.streams.video or not container.streams.video[0].frames:
                return f"{member.name}: has no picture"
            next(container.decode(video=0))
    except (av.FFmpegError, StopIteration) as error:
        return f"{member.name}: does not open ({error})"
    return None
