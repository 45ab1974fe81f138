"""Taking rows, or files, out of a table, and then out of its history. For one who holds the root alone.

    rewrite   files with rows that change are written anew, in one commit     rows are gone for readers of the newest
    take_out  files are left out as they are, in one commit                   the same
    purge     checkpoint, then every file and entry that it does not need     nobody can read an older version

Killed on the way, a table has its rows as before or as after; the same call again goes on.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from sayso.compaction import NO_HOOKS, next_fence
from sayso.datafile import digest_of, write_file
from sayso.errors import CorruptObject
from sayso.root import Root
from sayso.rows import Row, StoredObject
from sayso.storage import Storage
from sayso.tablecheck import folder_of
from sayso.tablelog import LAST, LOG

Change = Callable[[pa.RecordBatch], pa.RecordBatch]
"""Some rows as they are to be; the very same object where they are to stay."""

_BATCH_ROWS = 1024
_GROUP_BYTES = 32 << 20


def batches(storage: Storage, key: str) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, a few at a time; CorruptObject where it is missing or none any more."""
    try:
        with storage.open(key) as file, pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(_BATCH_ROWS, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise CorruptObject(f"{key}: cannot be read ({error}); `sayso verify --repair` first") from error


def rewrite(root: Root, model: type[Row], change: Change) -> int:
    """Change rows of a table, in one commit or, where nothing changes, in none; by how many rows it became less."""
    table = root.table(model).opened()
    if table is None:
        return 0
    less = 0
    actions: list[AddAction | RemoveAction] = []
    for path, size in _live(table):
        key = f"{folder_of(model)}/{path}"
        before = after = 0
        touched = False
        for batch in batches(root.storage, key):
            changed = change(batch)
            before, after = before + batch.num_rows, after + changed.num_rows
            touched = touched or changed is not batch
        if touched:
            _check(root, key, path, size)
            less += before - after
            actions.append(_removed(path, size))
            if after:
                actions.append(_rewritten(root, table, key, change))
    _commit(table, actions)
    return less


def take_out(root: Root, model: type[Row], paths: Collection[str]) -> None:
    """Take data files out of a table, whatever is in them."""
    table = root.table(model).opened()
    if table is not None:
        _commit(table, [_removed(path, size) for path, size in _live(table) if path in paths])


def purge(root: Root, model: type[Row]) -> int:
    """Remove all of a table that its newest version does not need, also from its log; how many objects that were."""
    table = cut_log(root, model)
    if table is None:
        return 0
    needed = {f"{folder_of(model)}/{path}" for path, _ in _live(table)}
    return _remove_but(root, folder_of(model), needed, keep=f"{folder_of(model)}/{LOG}/")


def cut_log(root: Root, model: type[Row]) -> DeltaTable | None:
    """Make a checkpoint of a table's newest version and remove the log before it; the table, None without one."""
    table = root.table(model).opened()
    if table is None:
        return None
    table.create_checkpoint()
    log, version = f"{folder_of(model)}/{LOG}", table.version()
    _write_hint(root, log, version, adds=len(_live(table)))
    needed = {f"{log}/{name}" for name in (LAST, f"{version:020}.checkpoint.parquet", f"{version:020}.json")}
    _remove_but(root, log, needed)
    return table


def _write_hint(root: Root, log: str, version: int, adds: int) -> None:
    """Point at the newest checkpoint; one that was there already is not pointed at again by the library."""
    key = f"{log}/{version:020}.checkpoint.parquet"
    with root.storage.open(key) as file, pq.ParquetFile(file) as parquet:
        rows = parquet.metadata.num_rows
    hint = {"version": version, "size": rows, "sizeInBytes": root.storage.size(key), "numOfAddFiles": adds}
    root.storage.put_bytes(json.dumps(hint).encode(), f"{log}/{LAST}")


def _remove_but(root: Root, folder: str, needed: set[str], keep: str | None = None) -> int:
    listed = root.storage.list(folder, partial=True)
    out_of_use = [key for key in listed if key not in needed and not (keep and key.startswith(keep))]
    for key in out_of_use:
        root.storage.remove(key)
    return len(out_of_use)


def _live(table: DeltaTable) -> list[tuple[str, int]]:
    found = pa.table(table.get_add_actions()).select(["path", "size_bytes"]).to_pylist()
    return sorted((file["path"], file["size_bytes"]) for file in found)


def _check(root: Root, key: str, path: str, size: int) -> None:
    """CorruptObject where a file is broken: written anew it would look whole."""
    if digest := digest_of(path):
        root.storage.check(StoredObject(key=key, sha256=digest, bytes=size))


def _removed(path: str, size: int) -> RemoveAction:
    return RemoveAction(path, data_change=True, deletion_timestamp=int(time.time() * 1000), size=size)


def _rewritten(root: Root, table: DeltaTable, key: str, change: Change) -> AddAction:
    with root.storage.open(key) as file, pq.ParquetFile(file) as parquet:
        wanted = parquet.schema_arrow
    changed = (change(batch) for batch in batches(root.storage, key))
    return write_file(table, uuid.uuid4().hex, _groups(changed, wanted), wanted, data_change=True)


def _groups(found: Iterator[pa.RecordBatch], wanted: pa.Schema) -> Iterator[pa.Table]:
    """Rows in tables large enough for a row group."""
    waiting: list[pa.RecordBatch] = []
    for batch in found:
        waiting.append(batch)
        if sum(each.nbytes for each in waiting) >= _GROUP_BYTES:
            yield pa.Table.from_batches(waiting, wanted).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting, wanted).combine_chunks()


def _commit(table: DeltaTable, actions: list[Any]) -> None:
    if actions:
        table.create_write_transaction(
            actions,
            "append",
            table.schema(),
            commit_properties=CommitProperties(app_transactions=[next_fence(table)]),
            post_commithook_properties=NO_HOOKS,
        )
