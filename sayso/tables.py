"""A Delta Lake table of one row model. Appends are atomic; a stage's results are appended by a Writer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeGuard, TypeVar

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from sayso.arrow import MADE_BY, MADE_FROM, fitted, from_arrow, missing, schema
from sayso.errors import StorageError
from sayso.patience import PATIENCE, Patience, ride_out
from sayso.rows import Row
from sayso.writer import Writer, check_columns, one_line, open_table

R = TypeVar("R", bound=Row)
T = TypeVar("T")

Asked: TypeAlias = str | bool | Collection[str]
"""What is asked of a column: a text, one of several, or true or false."""

# Rows read at a time. A transcript may have a megabyte, and one batch should stay within memory.
_BATCH_ROWS = 1024
# More values than this are looked up here: the engine's planner recurses over each, and 50,000 overflow its stack.
_MOST_LITERALS = 1000
_KEY_TYPES = (pa.string(), pa.int64())


class Table(Generic[R]):
    """All rows of one model under a root. The columns that a newer sayso added are None in older rows."""

    def __init__(
        self,
        model: type[R],
        url: str,
        storage_options: Mapping[str, str] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self.model = model
        self.url = url
        self.storage_options = dict(storage_options or {})
        self.patience = patience

    def exists(self) -> bool:
        """Whether anything was ever appended."""
        return self.version() >= 0

    def version(self) -> int:
        """The table's version, -1 before the first append."""
        table = self.opened()
        return -1 if table is None else table.version()

    def opened(self, version: int | None = None) -> DeltaTable | None:
        """The Delta table at a version or its newest, None before the first append."""
        return self._ride_out(lambda: self._opened_once(version))

    def _opened_once(self, version: int | None) -> DeltaTable | None:
        try:
            return open_table(self.url, self.storage_options, version)
        except (DeltaError, OSError) as error:
            raise StorageError(f"{self.url}: cannot be opened ({one_line(error)})") from error

    def _ride_out(self, call: Callable[[], T]) -> T:
        """Read again where a remote store's answer breaks off."""
        return ride_out(call, self.url, self.patience)

    def writer(self, name: str) -> Writer:
        """The one that appends a stage's results, opened at the table's present version. Makes nothing yet."""
        return Writer(self.model, self.url, self.storage_options, name)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append dumped rows with their marks (made_by, made_from) in one commit, whoever else appends.

        Raises NoSpace where the disk is full; the table is then unchanged.
        """
        Writer(self.model, self.url, self.storage_options, name=None).append(records)

    def read(self, columns: Sequence[str] | None = None, version: int | None = None, **where: Asked) -> pa.Table:
        """Columns as Arrow, of all rows or of those that have one of the values asked for in `where`'s columns.

        Empty before the first append. The order of rows is not defined.
        """
        wanted = self._wanted(columns)
        return self._ride_out(lambda: pa.Table.from_batches(self.stream(columns, version, **where), wanted))

    def rows(self, version: int | None = None, **where: Asked) -> Iterator[R]:
        """Rows as models, a few at a time: all, or those with one of the values asked for in `where`'s columns."""
        for batch in self.stream(list(self.model.model_fields), version, **where):
            yield from from_arrow(self.model, batch)

    def stream(
        self, columns: Sequence[str] | None = None, version: int | None = None, **where: Asked
    ) -> Iterator[pa.RecordBatch]:
        """What `read` returns, in batches that are read as they are asked for. The order of rows is not defined.

        StorageError where the store fails on the way: what was given out cannot be asked for again.
        """
        wanted = self._wanted(columns)
        table = self.opened(version) if all(map(_may_hold, where.values())) else None
        if table is None:
            return
        table_schema = pa.schema(table.schema().to_arrow())
        there = set(table_schema.names)
        check_columns(missing(wanted, table_schema), self.url)
        if not where.keys() <= there:  # a column that is None in all rows has none of the values
            return
        many = {column: frozenset(values) for column, values in where.items() if _are_many(values)}
        names = dict.fromkeys([*(name for name in wanted.names if name in there), *many, MADE_BY])
        query = _query(", ".join(map(_quoted, names)), where)
        for batch in self._select(table, query, {"datafusion.execution.batch_size": str(_BATCH_ROWS)}):
            found = fitted(batch, wanted)
            if many:
                asked = zip(*(_among(batch[column], values) for column, values in many.items()), strict=True)
                found = found.filter(pa.array(map(all, asked), pa.bool_()))
            yield found

    def keys(self) -> pa.LargeStringArray:
        """The keys of all rows, each once, as stages name them: the key columns with "/" between them.

        Large strings, because 100 million keys have more bytes than offsets of 32 bits reach.
        """
        fields = [schema(self.model).field(name) for name in self.model.key_columns]
        assert all(field.type in _KEY_TYPES for field in fields), f"{self.model.table} has keys that are no text"
        return self._distinct(f"concat_ws('/', {', '.join(_quoted(field.name) for field in fields)})")

    def made_from(self, stage: str) -> pa.LargeStringArray:
        """The inputs that a stage has turned into rows here, each once; large strings as in `keys`."""
        return self._distinct(_quoted(MADE_FROM), made_by=stage)

    def _distinct(self, expression: str, **where: str) -> pa.LargeStringArray:
        """Each value of an expression once, found by the engine: a large table's rows never reach Python."""
        table = self.opened()
        if table is None:
            return pa.array([], pa.large_string())
        query = _query(f"DISTINCT {expression} AS key", where)
        keys = self._ride_out(lambda: [batch["key"].cast(pa.large_string()) for batch in self._select(table, query)])
        return pa.chunked_array(keys, pa.large_string()).combine_chunks()

    def _select(self, table: DeltaTable, query: str, config: dict[str, str] | None = None) -> Iterator[pa.RecordBatch]:
        # Read by Delta Lake's own engine. Through pyarrow's data sets, threads of pyarrow would call back into
        # Python to read files, and where one of them still runs when the interpreter ends it aborts the process.
        try:
            yield from pa.RecordBatchReader.from_stream(QueryBuilder(config).register("t", table).execute(query))
        except (DeltaError, OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{self.url}: cannot be read ({one_line(error)})") from error

    def _wanted(self, columns: Sequence[str] | None) -> pa.Schema:
        every = schema(self.model)
        return pa.schema([every.field(name) for name in columns]) if columns else every


def _quoted(column: str) -> str:
    """A column's name in SQL; some are words of SQL (`end`, `rank`)."""
    return f'"{column}"'


def _may_hold(asked: Asked) -> bool:
    return isinstance(asked, bool) or bool(asked)


def _are_many(asked: Asked) -> TypeGuard[Collection[str]]:
    return not isinstance(asked, str | bool) and len(asked) > _MOST_LITERALS


def _among(column: pa.Array, values: frozenset[str]) -> list[bool]:
    return [value in values for value in column.to_pylist()]


def _query(what: str, where: Mapping[str, Asked]) -> str:
    """SQL over table t for the rows with the values asked for, or, of many values, for rows between them."""
    terms = []
    for column, asked in where.items():
        if isinstance(asked, bool):
            terms.append(_quoted(column) if asked else f"NOT {_quoted(column)}")
            continue
        values = [asked] if isinstance(asked, str) else sorted(asked)
        literals = ["'" + value.replace("'", "''") + "'" for value in values]
        within = f"BETWEEN {literals[0]} AND {literals[-1]}" if _are_many(asked) else f"IN ({', '.join(literals)})"
        terms.append(f"{_quoted(column)} {within}")
    condition = f" WHERE {' AND '.join(terms)}" if terms else ""
    return f"SELECT {what} FROM t{condition}"  # noqa: S608  columns are the model's own, values are quoted above
