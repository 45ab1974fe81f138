"""A Delta Lake table of one row model. Appends are atomic, and idempotent under a commit id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from sayso.arrow import MADE_BY, MADE_FROM, from_arrow, schema, to_arrow
from sayso.rows import Row
from sayso.storage import no_space_named

R = TypeVar("R", bound=Row)


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

    def read(self, columns: Sequence[str] | None = None, version: int | None = None) -> pa.Table:
        """The columns of all rows as Arrow; empty before the first append."""
        wanted = list(columns) if columns else schema(self.model).names
        if not self.exists():
            return schema(self.model).empty_table().select(wanted)
        return self._open(version).to_pyarrow_table(columns=wanted)

    def rows(self, version: int | None = None) -> Iterator[R]:
        """All rows, as models."""
        return from_arrow(self.model, self.read(list(self.model.model_fields), version))

    def select(self, where: pc.Expression) -> Iterator[R]:
        """The rows for which an Arrow expression holds; files that cannot hold any are not read."""
        if not self.exists():
            return iter(())
        dataset = self._open().to_pyarrow_dataset()
        return from_arrow(self.model, dataset.to_table(columns=list(self.model.model_fields), filter=where))

    def made_from(self, stage: str) -> set[str]:
        """The inputs that a stage has turned into rows here."""
        if not self.exists():
            return set()
        dataset = self._open().to_pyarrow_dataset()
        table = dataset.to_table(columns=[MADE_FROM], filter=pc.field(MADE_BY) == stage)
        return set(pc.unique(table[MADE_FROM]).to_pylist())
