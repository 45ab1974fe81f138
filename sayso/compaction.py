"""How a table stays quick to open and to read while it grows by many small commits.

Every hundred commits the small files of the last ones are written anew as one, a checkpoint of the log is made and
log entries that nobody looks at any more are removed; files that no reader can still hold go later. A process that
dies on the way leaves files that no version names, and the table as it was.

Files are joined here and not by the library's `optimize`: of two of those at once, or of one on an older version,
both commits are taken (deltalake 1.6.6), and every row that both had read is in the table twice. This one's commit
carries the number of the compaction, which the log takes once.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.fs import PyFileSystem

from sayso.arrow import fitted
from sayso.datafile import digest_of, write_file
from sayso.errors import CorruptObject

_log = logging.getLogger(__name__)

COMPACT_EVERY = 100
"""Commits to a table between two compactions."""

_MB = 1 << 20
# How many compactions apart, and how large files may become. A file larger than that is left alone. So a row is
# written anew about once a level, not at every compaction, and there are a few hundred files and one each 256 MB.
_LEVELS = ((100, 256 * _MB), (10, 32 * _MB), (1, 4 * _MB))
_VACUUM = 10
_NAME = "compaction"
_READERS = 8
_WINDOW_BYTES = 64 * _MB
_ROW_GROUP_BYTES = 32 * _MB
_BATCH_ROWS = 1024

PROPERTIES = {
    # A version is read within minutes of its time. Fewer entries make commits quicker on local disks, where each
    # commit lists the whole log; a writer that stood still for longer opens the table anew.
    "delta.logRetentionDuration": "interval 1 hours",
    # A reader of 100 million rows may hold a version for hours; a day is beyond all of them. It also spares the
    # files of appends under way, which no version names yet.
    "delta.deletedFileRetentionDuration": "interval 1 days",
}
"""What a new table is told about what must be kept."""

# Checkpoints are made by compaction, when there are few files to name; so a commit does one thing.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass(frozen=True)
class _File:
    path: str
    bytes: int


def compact_if_due(open_table: Callable[[], DeltaTable], before: int, after: int) -> None:
    """Compact a table if its versions (before, after] pass a multiple of COMPACT_EVERY.

    Nothing is raised: the rows are committed whatever happens here. Where another process compacts at the same time
    one of the two has its way, and what is left over is taken up the next time.
    """
    if not _passes(before, after, COMPACT_EVERY):
        return
    target = next(size for times, size in _LEVELS if _passes(before, after, times * COMPACT_EVERY))
    try:
        compact(open_table(), target, vacuum=_passes(before, after, _VACUUM * COMPACT_EVERY))
    except (DeltaError, OSError, pa.ArrowInvalid, CorruptObject) as error:
        _log.info("compaction of version %d is left to another time: %s", after, error)


def compact(table: DeltaTable, target_bytes: int, *, vacuum: bool = False) -> None:
    """Join files up to a size, checkpoint, and remove old log entries and, with `vacuum`, files out of use."""
    try:
        _join_small_files(table, target_bytes)
    finally:
        # Without a checkpoint the next to open the table would read all entries of the log since the last one.
        table.update_incremental()
        table.create_checkpoint()
    table.cleanup_metadata()
    if vacuum:
        # In full, so that files of writers that died before their commit go too; all are kept for their time.
        table.vacuum(dry_run=False, full=True)


def next_fence(table: DeltaTable) -> Transaction:
    """What a commit carries that removes files: of two that stand on the same version the log takes one."""
    number = table.transaction_version(_NAME)
    return Transaction(_NAME, 0 if number is None else number + 1)


def _passes(before: int, after: int, every: int) -> bool:
    return after // every > max(before, 0) // every


def _join_small_files(table: DeltaTable, target_bytes: int) -> None:
    """Replace small files by larger ones with the same rows, in one commit; CommitFailedError if another did so."""
    fence = next_fence(table)
    actions: list[AddAction | RemoveAction] = []
    now_ms = int(time.time() * 1000)
    for files in _bins(table, target_bytes):
        actions.append(_joined(table, files))
        actions += [
            RemoveAction(file.path, data_change=False, deletion_timestamp=now_ms, size=file.bytes) for file in files
        ]
    if actions:
        table.create_write_transaction(
            actions,
            "append",
            table.schema(),
            commit_properties=CommitProperties(app_transactions=[fence]),
            post_commithook_properties=NO_HOOKS,
        )


def _bins(table: DeltaTable, target_bytes: int) -> list[list[_File]]:
    """Files of a table to be joined, each list into one of at most `target_bytes`."""
    found = pa.table(table.get_add_actions()).select(["path", "size_bytes"]).to_pylist()
    bins: list[list[_File]] = [[]]
    filled = 0
    for file in sorted((_File(each["path"], each["size_bytes"]) for each in found), key=lambda file: file.bytes):
        if file.bytes > target_bytes:
            break
        if filled + file.bytes > target_bytes:
            bins.append([])
            filled = 0
        bins[-1].append(file)
        filled += file.bytes
    return [files for files in bins if len(files) > 1]


def _joined(table: DeltaTable, files: Sequence[_File]) -> AddAction:
    """Write a new file with the rows of others; no version names it yet."""
    store = PyFileSystem(DeltaStorageHandler.from_table(table._table))
    wanted = pa.schema(table.schema().to_arrow())
    return write_file(table, uuid.uuid4().hex, _row_groups(store, files, wanted), wanted, data_change=False)


def _row_groups(store: PyFileSystem, files: Sequence[_File], wanted: pa.Schema) -> Iterator[pa.Table]:
    """The rows of files, in tables large enough for a row group."""
    waiting: list[pa.RecordBatch] = []
    waiting_bytes = 0
    for batch in _batches(store, files, wanted):
        waiting.append(batch)
        waiting_bytes += batch.nbytes
        if waiting_bytes >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting, wanted).combine_chunks()
            waiting, waiting_bytes = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting, wanted).combine_chunks()


def _batches(store: PyFileSystem, files: Sequence[_File], wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Files are fetched a few at a time, for the store's sake, and read in this thread, for Python's end's sake."""
    with ThreadPoolExecutor(_READERS) as readers:
        for some in _windows(files):
            for data in readers.map(lambda file: _sound(store, file.path), some):
                for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(_BATCH_ROWS, use_threads=False):
                    yield fitted(batch, wanted)


def _sound(store: PyFileSystem, path: str) -> bytes:
    """A data file's bytes; CorruptObject where they are not those of its name: joined they would look whole."""
    data: bytes = store.open_input_file(path).read()
    if digest_of(path) not in (None, hashlib.sha256(data).hexdigest()):
        raise CorruptObject(f"{path}: not the bytes that its name says")
    return data


def _windows(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Files that may be held in memory at the same time."""
    window: list[_File] = []
    for file in files:
        if window and (len(window) == _READERS or sum(each.bytes for each in window) + file.bytes > _WINDOW_BYTES):
            yield window
            window = []
        window.append(file)
    yield window
