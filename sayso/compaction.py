"""How a table stays quick to open and to read while it grows by many small commits.

Every hundred commits the small files of the last ones are written anew as one, a checkpoint of the log is made and
log entries that nobody looks at any more are removed; files that no reader can still hold go later. A process that
dies on the way leaves files that no version names, and the table as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

_log = logging.getLogger(__name__)

COMPACT_EVERY = 100
"""Commits to a table between two compactions."""

_MB = 1 << 20
# How many compactions apart, and how large files may become. A file larger than that is left alone. So a row is
# written anew about once a level, not at every compaction, and there are a few hundred files and one each 256 MB.
_LEVELS = ((100, 256 * _MB), (10, 32 * _MB), (1, 4 * _MB))
_VACUUM = 10

PROPERTIES = {
    # A version is read within minutes of its time. Fewer entries make commits quicker on local disks, where each
    # commit lists the whole log; a writer that stood still for longer opens the table anew.
    "delta.logRetentionDuration": "interval 1 hours",
    # A reader of 100 million rows may hold a version for hours; a day is beyond all of them. It also spares the
    # files of appends under way, which no version names yet.
    "delta.deletedFileRetentionDuration": "interval 1 days",
}
"""What a new table is told about what must be kept."""


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
    except (DeltaError, OSError) as error:
        _log.info("compaction of version %d is left to another time: %s", after, error)


def compact(table: DeltaTable, target_bytes: int, *, vacuum: bool = False) -> None:
    """Join files up to a size, checkpoint, and remove old log entries and, with `vacuum`, files out of use."""
    try:
        table.optimize.compact(target_size=target_bytes)
    finally:
        # Without a checkpoint the next to open the table would read all entries of the log since the last one.
        table.create_checkpoint()
    table.cleanup_metadata()
    if vacuum:
        # In full, so that files of writers that died before their commit go too; all are kept for their time.
        table.vacuum(dry_run=False, full=True)


def _passes(before: int, after: int, every: int) -> bool:
    return after // every > before // every
