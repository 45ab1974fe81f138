"""What is pending of a stage, and the commits of what is settled.

A result and the mark that it is done are the same row (made_by, made_from), so no crash can part them. What was
settled and not yet committed when the driver dies is simply done again.

Of a million videos that are done no key comes into this process: they are matched by the tables' engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.engine.failures import FINISHED
from sayso.engine.inputs import look, open_failures, stage_tally
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
        self._taken: set[str] = set()
        self.tally = stage_tally(root, stage)
        self._open: dict[str, _Open] = {}
        self._note_open()
        self._records: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []
        self._versions: dict[str, int] | None = None
        self.gated = 0
        """Inputs that stages before have not settled yet."""

    def look(self) -> list[tuple[str, float]]:
        """The keys that became ready since the last look, each with the seconds to wait before it may be tried."""
        versions = {model.table: self._root.table(model).version() for model in self._sources()}
        if versions == self._versions:
            return []
        self._versions = versions
        found = look(self._root, self._stage)
        self.tally.total, self.gated = found.total, found.gated
        new = [key for key in dict.fromkeys(found.ready) if key not in self._taken]
        self._taken.update(new)
        present = now()
        return [(key, self._wait(key, present)) for key in new]

    def _sources(self) -> set[type[Row]]:
        gates: list[type[Row]] = [*self._stage.after.values(), Failure] if self._stage.after else []
        return {self._stage.reads, *gates}

    def _note_open(self) -> None:
        """Remember the failures of earlier runs that are to be tried again."""
        failures = open_failures(self._root, self._stage)
        given_up = pc.is_in(failures["kind"], value_set=pa.array(sorted(FINISHED)))
        for row in failures.filter(pc.invert(given_up)).to_pylist():
            self._open[row["id"]] = _Open(row["reason"], row["attempts"], row["not_before"] or row["when"])

    def _wait(self, key: str, present: datetime) -> float:
        failed = self._open.get(key)
        return max(0.0, (failed.due - present).total_seconds()) if failed else 0.0

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
