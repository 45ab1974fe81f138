"""SQL over a root's tables, by Delta Lake's own engine: for what is counted or matched over millions of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from sayso.arrow import schema
from sayso.errors import StorageError
from sayso.patience import ride_out
from sayso.root import Root
from sayso.rows import TABLES, Row

_TYPES = {
    pa.string(): "Utf8View",
    pa.int64(): "Int64",
    pa.float64(): "Float64",
    pa.bool_(): "Boolean",
    pa.timestamp("us", "UTC"): 'Timestamp(Microsecond, Some("UTC"))',
}


class Sql:
    """Some tables of a root as they are at this moment, each under its own name. A table never written is empty.

    StorageError where they cannot be read.
    """

    def __init__(self, root: Root, models: Iterable[type[Row]] = TABLES) -> None:
        self._engine = QueryBuilder()
        self._url = f"{root.url}/tables"
        self._patience = root.storage.patience
        for model in models:
            table = root.table(model)
            opened = table.opened()
            if opened is None:
                self._run(f"CREATE VIEW {model.table} AS {_nothing(model)}")
            else:
                self.add(model.table, opened)

    def add(self, name: str, table: DeltaTable) -> None:
        """Add another table under a name."""
        self._engine.register(name, table)

    def ask(self, query: str) -> pa.Table:
        """The answer to a query, its text as plain strings."""
        found = self._run(query)
        plain = [field.with_type(pa.string()) if _is_text(field.type) else field for field in found.schema]
        return found.cast(pa.schema(plain))

    def number(self, query: str) -> int:
        """The answer to a query for one number."""
        return int(self._run(query)[0][0].as_py())

    def _run(self, query: str) -> pa.Table:
        return ride_out(lambda: self._once(query), self._url, self._patience)

    def _once(self, query: str) -> pa.Table:
        try:
            return pa.table(self._engine.execute(query))
        except (DeltaError, OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{self._url}: cannot be read ({_one_line(error)})") from error


def text(value: str) -> str:
    """A string as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def texts(values: Iterable[str]) -> str:
    """Strings as what stands behind IN; at least one."""
    return f"({', '.join(text(value) for value in sorted(values))})"


def _one_line(error: Exception) -> str:
    """An error of the engine, which spans coloured lines, for a message."""
    return " ".join(re.sub(r"\x1b\[\d+m|↳", " ", str(error)).split())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_large_string(kind))


def _nothing(model: type[Row]) -> str:
    """A query for no rows with the model's plain columns."""
    plain = [(field.name, _TYPES[field.type]) for field in schema(model) if field.type in _TYPES]
    return "SELECT " + ", ".join(f"arrow_cast(NULL, '{kind}') AS \"{name}\"" for name, kind in plain) + " WHERE false"
