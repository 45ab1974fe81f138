"""The one that appends a stage's results to a table: every append once, and nobody else under the same name.

A commit carries its writer's name and the next number of that name (a Delta transaction). The log refuses a commit
if that number moved since the version that the writer stands on, whoever moved it and however long the writer
stood still. Appends under other names, and compaction, pass by.

If the process dies                     then
    before the commit                   rows are not there, their inputs are pending; the file is removed in time
    after the commit                    rows are there; their inputs are done
    after the commit, in compaction     rows are there; files without use are removed in time
Where a commit's answer is lost, the writer looks for its own mark in the log before it tries again.
"""

from __future__ import annotations

import random
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, DeltaProtocolError, SchemaMismatchError, TableNotFoundError

from sayso.arrow import missing, schema, to_arrow
from sayso.compaction import NO_HOOKS, PROPERTIES, compact_if_due
from sayso.datafile import write_file
from sayso.errors import NoSpace, RootBusy, RootError, SaysoError, StorageError
from sayso.rows import Row

_MARK = "sayso"
_TRIES = 5
_PAUSE = 0.2
"""Seconds, about, before the second try; twice as long before each that follows."""
_LIMIT = 120.0
"""Seconds after which a commit that fails is not tried again. The store's client has tried several times by then."""
_SPARE_BYTES = 1 << 20


class Writer:
    """Appends rows to one table under a name; without a name nobody is kept out. For one thread.

    Raises RootBusy where another process has appended under the same name since this one opened the table.
    """

    def __init__(self, model: type[Row], url: str, options: Mapping[str, str], name: str | None) -> None:
        self.name = name
        self.seconds = 0.0
        """Wall seconds spent in commits so far."""
        self.commits = 0
        """Commits made so far."""
        self._model, self._url, self._options = model, url, dict(options)
        self._token, self._author = uuid.uuid4().hex, uuid.uuid4().hex
        self._appends = 0
        self._handle = open_table(url, options)
        self._number = self._last()

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append dumped rows with their marks (made_by, made_from) in one commit.

        Raises RootBusy, NoSpace where the disk is full, StorageError where the store fails for long. After
        StorageError it is not known whether the rows are there: look up what is done before appending them again.
        """
        if not records:
            return
        data = to_arrow(self._model, records)
        self._appends += 1
        began, before = time.monotonic(), self._version()
        try:
            self._commit(data, f"{self._token}/{self._appends}")
            self.commits += 1
            compact_if_due(self._opened, before, self._version())
        finally:
            self.seconds += time.monotonic() - began

    def _commit(self, data: pa.Table, mark: str) -> None:
        """Write until it is known that the rows are there."""
        base, deadline = self._version(), time.monotonic() + _LIMIT
        for attempt in range(1, _TRIES + 1):
            try:
                if attempt > 1 and self._landed(mark, base):
                    return
                self._write(data, mark)
                return
            except (SchemaMismatchError, DeltaProtocolError):
                raise
            except (DeltaError, OSError) as error:
                # Full disks and faults of the store have no class of their own here, and some are bare DeltaErrors.
                if attempt == _TRIES or time.monotonic() > deadline or self._disk_is_full(data.nbytes):
                    raise self._fault(error, data.nbytes) from error
            time.sleep(random.uniform(0.5, 1.0) * _PAUSE * 2**attempt)

    def _write(self, data: pa.Table, mark: str) -> None:
        if self._handle is None:
            self._handle = self._created()
        self._check_alone()
        there = pa.schema(self._handle.schema().to_arrow())
        lacking = missing(schema(self._model), there)
        check_columns(lacking | missing(there, schema(self._model)), self._url)
        if lacking:
            self._grow()
        transactions = [Transaction(self.name, self._number + 1)] if self.name else None
        # The same author at every try, so that what an earlier one has written is written over, not beside it.
        author = f"{self._author}-{self._appends:x}"
        added = write_file(self._handle, author, [data], data.schema, data_change=True)
        self._handle.create_write_transaction(
            [added],
            "append",
            self._handle.schema(),
            commit_properties=CommitProperties(custom_metadata={_MARK: mark}, app_transactions=transactions),
            post_commithook_properties=NO_HOOKS,
        )
        self._handle.update_incremental()
        self._number += 1

    def _grow(self) -> None:
        """Give the table the model's columns that it lacks, in a commit of their own, without rows."""
        assert self._handle is not None, "a table is there before it grows"
        nothing = schema(self._model).empty_table()
        write_deltalake(self._handle, nothing, mode="append", schema_mode="merge", post_commithook_properties=NO_HOOKS)

    def _landed(self, mark: str, base: int) -> bool:
        """Stand on the newest version; whether a version after `base` holds the rows already."""
        self._handle = _find_table(self._url, self._options)
        if self._handle is None:
            if base >= 0:
                raise RootError(f"{self._url}: the table is gone; something else removes files under this root")
            return False
        if self.name and self._last() == self._number:
            return False
        since = self._version() - base
        if since > 0 and any(entry.get(_MARK) == mark for entry in self._handle.history(since)):
            self._number += 1
            return True
        self._check_alone()
        return False

    def _check_alone(self) -> None:
        if self.name and self._last() != self._number:
            raise RootBusy(
                f"{self._url}: another run appends rows of `{self.name}` to this root; this one stops, "
                "nothing is lost or doubled; run the command again once the other has ended"
            )

    def _created(self) -> DeltaTable:
        """The table, made without rows. Made with its first rows it could be made twice, past every check."""
        try:
            return DeltaTable.create(
                self._url,
                schema(self._model),
                mode="error",
                configuration=PROPERTIES,
                storage_options=self._options,
                # No second try: it would make the table again on top of another writer's.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except (DeltaError, OSError):
            made_by_another = _find_table(self._url, self._options)
            if made_by_another is None:
                raise
            return made_by_another

    def _opened(self) -> DeltaTable:
        """A handle for compaction. On the writer's own one it would step past others' commits unseen."""
        return DeltaTable(self._url, storage_options=self._options)

    def _version(self) -> int:
        return -1 if self._handle is None else self._handle.version()

    def _last(self) -> int:
        """The last number committed under this name that the handle knows of, -1 where there is none."""
        number = self._handle.transaction_version(self.name) if self._handle is not None and self.name else None
        return -1 if number is None else number

    def _disk_is_full(self, needed_bytes: int) -> bool:
        if "://" in self._url:
            return False
        place = Path(self._url)
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free < needed_bytes + _SPARE_BYTES

    def _fault(self, error: Exception, needed_bytes: int) -> SaysoError:
        if self._disk_is_full(needed_bytes):
            return NoSpace(f"no space left on {self._url}: free some and run the same command again")
        return StorageError(f"{self._url}: rows cannot be written ({one_line(error)})")


def open_table(url: str, options: Mapping[str, str], version: int | None = None) -> DeltaTable | None:
    """A Delta table at a version or its newest, None where there is none; StorageError where that cannot be told."""
    try:
        return _find_table(url, options, version)
    except (DeltaError, OSError) as error:
        raise StorageError(f"{url}: cannot be opened ({one_line(error)})") from error


def _find_table(url: str, options: Mapping[str, str], version: int | None = None) -> DeltaTable | None:
    try:
        return DeltaTable(url, version=version, storage_options=dict(options))
    except TableNotFoundError:
        return None


def check_columns(differing: Mapping[str, bool], url: str) -> None:
    """RootError where a table and a model differ in a column, or part of one, that is never null."""
    needed = [name for name, nullable in differing.items() if not nullable]
    if needed:
        raise RootError(
            f"{url}: was made by another version of sayso, whose rows differ in {', '.join(needed)}; "
            "use that version, or choose another --root"
        )


def one_line(error: Exception, limit: int = 300) -> str:
    """An error of the Delta engine, which spans coloured lines, for a message."""
    text = " ".join(re.sub(r"\x1b\[\d+m|↳", " ", str(error)).split())
    return text if len(text) <= limit else f"{text[:limit]}…"
