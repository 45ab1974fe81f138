"""A Delta Lake table of one row model. Appends are atomic, and idempotent under a commit id."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from sayso.arrow import MADE_FROM, from_arrow, schema, to_arrow
from sayso.rows import Row
from sayso.storage import no_space_named

R = TypeVar("R", bound=Row)

Asked: TypeAlias = str | bool | Collection[str]
"""What is asked of a column: a text, one of several, or true or false."""


@dataclass(frozen=True)
class CommitId:
    """Names one commit: the same id appended twice is written once."""

    run: str
    number: int


class Table(Generic[R]):
    """All rows of one model under a root."""

    def __init__(self, model: type[R], url: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.model = model
        self.url = url
        self.storage_options = dict(storage_options or {})

    def exists(self) -> bool:
        """Whether anything was ever appended."""
        return bool(DeltaTable.is_deltatable(self.url, self.storage_options))

    def version(self) -> int:
        """The table's version, -1 before the first append."""
        return self._open().version() if self.exists() else -1

    def _open(self, version: int | None = None) -> DeltaTable:
        return DeltaTable(self.url, version=version, storage_options=self.storage_options)

    def append(self, records: Sequence[Mapping[str, Any]], commit: CommitId) -> None:
        """Append dumped rows with their marks (made_by, made_from) in one commit; nothing if it was made before.

        Raises NoSpace where the disk is full; the table is then unchanged.
        """
        if not records or self._committed(commit):
            return
        properties = CommitProperties(app_transactions=[Transaction(commit.run, commit.number)])
        with no_space_named(self.url):
            write_deltalake(
                self.url,
                to_arrow(self.model, records),
                mode="append",
                commit_properties=properties,
                storage_options=self.storage_options,
            )

    def _committed(self, commit: CommitId) -> bool:
        if not self.exists():
            return False
        last = self._open().transaction_version(commit.run)
        return last is not None and last >= commit.number

    def read(self, columns: Sequence[str] | None = None, version: int | None = None, **where: Asked) -> pa.Table:
        """Columns as Arrow, of all rows or of those that have one of the values asked for in `where`'s columns.

        Empty before the first append. The order of rows is not defined.
        """
        wanted = self._schema(columns)
        return pa.concat_tables([wanted.empty_table(), *self.batches(wanted.names, version, **where)])

    def batches(
        self, columns: Sequence[str] | None = None, version: int | None = None, **where: Asked
    ) -> Iterator[pa.Table]:
        """The same in pieces of some thousand rows, for what must not be in memory as a whole."""
        wanted = self._schema(columns)
        if not self.exists() or not all(isinstance(asked, bool) or asked for asked in where.values()):
            return
        # Read by Delta Lake's own engine. Through pyarrow's data sets, threads of pyarrow would call back into
        # Python to read files, and where one of them still runs when the interpreter ends it aborts the process.
        reader = self._open(version).scan(columns=wanted.names, predicate=_predicate(where))
        for batch in pa.RecordBatchReader.from_stream(reader):
            yield pa.Table.from_batches([batch]).cast(wanted)

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        return pa.schema([schema(self.model).field(name) for name in columns]) if columns else schema(self.model)

    def keys(self) -> pa.StringArray:
        """The keys of all rows, each once: the key columns joined by "/"."""
        columns = self.read(list(self.model.key_columns))
        if not columns.num_rows:
            return pa.array([], pa.string())
        joined = pc.binary_join_element_wise(*(columns[name].cast(pa.string()) for name in columns.column_names), "/")
        return pc.unique(joined)

    def rows(self, version: int | None = None, **where: Asked) -> Iterator[R]:
        """Rows as models: all, or those that have one of the values asked for in `where`'s columns."""
        return from_arrow(self.model, self.read(list(self.model.model_fields), version, **where))

    def made_from(self, stage: str) -> set[str]:
        """The inputs that a stage has turned into rows here."""
        return set(pc.unique(self.read([MADE_FROM], made_by=stage)[MADE_FROM]).to_pylist())


def _predicate(where: Mapping[str, Asked]) -> str | None:
    """SQL that holds for rows with the values asked for."""
    terms = []
    for column, asked in where.items():
        if isinstance(asked, bool):
            terms.append(column if asked else f"NOT {column}")
            continue
        values = [asked] if isinstance(asked, str) else sorted(asked)
        literals = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        terms.append(f"{column} IN ({literals})")
    return " AND ".join(terms) or None
