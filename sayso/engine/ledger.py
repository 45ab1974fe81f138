"""What is pending of a stage, and the commits of what is settled.

A result and the mark that it is done are the same row (made_by, made_from), so no crash can part them. What was
settled and not yet committed when the driver dies is simply done again.

Keys are kept in Arrow: of a million videos that are done, none becomes a Python object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.engine.failures import FINISHED, Tally, newest_failures, settled
from sayso.engine.outcome import Done, Failed
from sayso.root import Root
from sayso.rows import Failure, Row, now
from sayso.stage import Stage


@dataclass(frozen=True)
class _Open:
    """A failure that is to be tried again."""

    reason: str
    attempts: int
    due: datetime


class Ledger:
    """The state of one stage in one run. Made when the stage begins; nobody else may commit its results meanwhile."""

    def __init__(self, stage: Stage[Any, Any], root: Root) -> None:
        self._stage = stage
        self._root = root
        self._results = root.table(stage.writes).writer(stage.name)
        self._refusals = root.table(Failure).writer(stage.name)
        self._known = _strings([])
        self._open: dict[str, _Open] = {}
        self._records: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []
        self._versions: dict[str, int] | None = None
        self.tally = Tally()
        self.gated = 0
        """Inputs that stages before have not settled yet."""

    def look(self) -> list[tuple[str, float]]:
        """The keys that became pending since the last look, each with the seconds to wait before it may be tried."""
        versions = {model.table: self._root.table(model).version() for model in self._sources()}
        if versions == self._versions:
            return []
        first, self._versions = self._versions is None, versions
        keys = self._stage.input_keys()
        self.tally.total = len(keys)
        for name, writes in self._stage.after.items():
            keys = _within(keys, settled(self._root, name, writes))
        self.gated = self.tally.total - len(keys)
        new = _without(keys, self._known)
        self._known = pa.chunked_array([*self._known.chunks, *_strings(new).chunks], pa.large_string())
        return list(self._first_look(new) if first else ((key, 0.0) for key in new.to_pylist()))

    def _sources(self) -> set[type[Row]]:
        gates: list[type[Row]] = [*self._stage.after.values(), Failure] if self._stage.after else []
        return {self._stage.reads, *gates}

    def _first_look(self, keys: pa.ChunkedArray) -> Iterator[tuple[str, float]]:
        """What earlier runs left: a key that comes later cannot have been done by anybody else."""
        done = self._root.table(self._stage.writes).made_from(self._stage.name)
        rest = _without(keys, done)
        self.tally.done = len(keys) - len(rest)
        failures = newest_failures(self._root, self._stage.name)
        failures = failures.filter(pc.is_in(failures["id"], value_set=_strings(rest)))
        for group in failures.group_by(["kind", "reason"]).aggregate([([], "count_all")]).to_pylist():
            self.tally.count(group["kind"], group["reason"], by=group["count_all"])
        over = pc.is_in(failures["kind"], value_set=pa.array(sorted(FINISHED)))
        for row in failures.filter(pc.invert(over)).to_pylist():
            due = row["not_before"] or row["when"]
            self._open[row["id"]] = _Open(row["reason"], row["attempts"], due)
        present = now()
        for key in _without(rest, failures.filter(over)["id"]).to_pylist():
            failed = self._open.get(key)
            yield key, max(0.0, (failed.due - present).total_seconds()) if failed else 0.0

    def key(self, row: Row) -> str:
        """The row's name in the ledger."""
        return self._stage.key(row)

    def attempts(self, row: Row, reason: str) -> int:
        """How often in a row an input failed for the same reason, last."""
        failed = self._open.get(self._stage.key(row))
        return failed.attempts if failed and failed.reason == reason else 0

    @property
    def waiting(self) -> int:
        """Records that are not committed yet."""
        return len(self._records) + len(self._failed)

    def done(self, row: Row, outcome: Done) -> None:
        """Note a row's results."""
        key = self._stage.key(row)
        self._forget(key)
        self._records.extend(_marked(record, self._stage.name, key) for record in outcome.records)
        self.tally.done += 1

    def failed(self, row: Row, outcome: Failed, wait: float | None) -> None:
        """Note a row's failure; `wait` is the seconds to its next attempt, None where there is none."""
        key = self._stage.key(row)
        attempts = self.attempts(row, outcome.reason) + 1
        self._forget(key)
        due = None if wait is None else now() + timedelta(seconds=wait)
        failure = Failure(
            stage=self._stage.name,
            id=key,
            kind=outcome.kind,
            reason=outcome.reason,
            message=outcome.message,
            attempts=attempts,
            not_before=due,
        )
        if failure.kind not in FINISHED:
            self._open[key] = _Open(failure.reason, attempts, due or failure.when)
        self.tally.count(failure.kind, failure.reason)
        self._failed.append(_marked(failure.model_dump(), self._stage.name, key))

    def _forget(self, key: str) -> None:
        earlier = self._open.pop(key, None)
        if earlier:
            self.tally.count("retry", earlier.reason, by=-1)

    def commit(self) -> bool:
        """Write what is settled to the tables: one commit of results, one of failures. False where there is nothing.

        Raises RootBusy where another run wrote results of this stage, StorageError and NoSpace; what is not written
        stays noted.
        """
        any_waiting = self.waiting > 0
        self._results.append(self._records)
        self._records = []
        self._refusals.append(self._failed)
        self._failed = []
        return any_waiting


def _marked(record: Mapping[str, Any], stage: str, key: str) -> dict[str, Any]:
    return {**record, MADE_BY: stage, MADE_FROM: key}


def _strings(keys: Any) -> pa.ChunkedArray:
    """Keys as a chunked array of large strings, as tables give them."""
    if isinstance(keys, pa.ChunkedArray):
        return keys.cast(pa.large_string())
    return pa.chunked_array([pa.array(keys, pa.large_string())])


def _within(keys: Any, others: Any) -> pa.ChunkedArray:
    keys = _strings(keys)
    return keys.filter(pc.is_in(keys, value_set=_strings(others)))


def _without(keys: Any, others: Any) -> pa.ChunkedArray:
    keys = _strings(keys)
    return keys.filter(pc.invert(pc.is_in(keys, value_set=_strings(others))))
