"""A table's data file: written under a name that carries the SHA-256 of its bytes, so that damage can be seen.

    part-<who wrote it>-<SHA-256 in hex>.zstd.parquet

Delta Lake keeps no checksum of its files. A flipped bit in one may well decode, to other rows; with this name it is
found by reading the file. The log is told how many rows a file has and nothing else: extremes of
columns are in the file's footer, where the engine looks for them. In the log nothing would vouch for them, a flipped
bit there would hide rows, and they would keep ids and beginnings of texts of rows that are to be forgotten.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterable
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from pyarrow.fs import PyFileSystem

_NAME = re.compile(r"part-[0-9a-f-]+-(?P<sha256>[0-9a-f]{64})\.zstd\.parquet")
_IN_MEMORY_BYTES = 8 << 20
_CHUNK_BYTES = 4 << 20


def write_file(
    table: DeltaTable, author: str, rows: Iterable[pa.Table], wanted: pa.Schema, *, data_change: bool
) -> AddAction:
    """Write a new file with these rows, one row group a piece; no version names it before the action is committed.

    `author` is hexadecimal and keeps files of the same rows apart. Written again by the same one, a file is the same.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, prefix="sayso-") as scratch:
        count = 0
        with pq.ParquetWriter(scratch, wanted, compression="zstd") as writer:
            for piece in rows:
                writer.write_table(piece)
                count += piece.num_rows
        path = f"part-{author}-{_digest(scratch)}.zstd.parquet"
        size = _send(scratch, table, path)
    return AddAction(path, size, {}, int(time.time() * 1000), data_change=data_change, stats=statistics(count))


def statistics(rows: int) -> str:
    """What the log is told about a file of so many rows."""
    return json.dumps({"numRecords": rows})


def digest_of(path: str) -> str | None:
    """The SHA-256 that a file's name carries; None where it was not written here."""
    found = _NAME.fullmatch(path)
    return found["sha256"] if found else None


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _send(file: IO[bytes], table: DeltaTable, path: str) -> int:
    file.seek(0)
    size = 0
    store = PyFileSystem(DeltaStorageHandler.from_table(table._table))
    # Buffered, as the store's stream takes bytes and would be given a buffer of Arrow's.
    with pa.BufferedOutputStream(store.open_output_stream(path), _CHUNK_BYTES) as stream:
        while chunk := file.read(_CHUNK_BYTES):
            stream.write(chunk)
            size += len(chunk)
    return size
