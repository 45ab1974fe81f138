"""What is pending of a stage, and the commits of what is settled.

A result and the mark that it is done are the same row (made_by, made_from), so no crash can part them. What was
settled and not yet committed when the driver dies is simply done again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.engine.outcome import Done, Failed
from sayso.root import Root
from sayso.rows import Failure, Row, now
from sayso.stage import Stage
from sayso.tables import CommitId

# Kinds that are never tried again unless somebody asks for it.
FINISHED = frozenset({"skip", "permanent", "poison"})


def newest_failures(root: Root, stage: str) -> dict[str, Failure]:
    """The newest failure of each input of a stage."""
    rows = root.table(Failure).rows(stage=stage)
    return {row.id: row for row in sorted(rows, key=lambda row: (row.when, row.attempts))}


@dataclass
class Tally:
    """Counts of a stage's inputs."""

    total: int = 0
    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def pending(self) -> int:
        """Inputs that are neither done, dropped nor failed."""
        return self.total - self.done - self.skipped.total() - self.failed.total()

    def count(self, failure: Failure, by: int = 1) -> None:
        """Count an input's newest failure (or, with by=-1, take it back)."""
        group = self.skipped if failure.kind == "skip" else self.failed
        group[failure.reason] += by
        if not group[failure.reason]:
            del group[failure.reason]


def stage_tally(root: Root, stage: Stage[Any, Any]) -> Tally:
    """Count a stage's inputs from the tables' keys; rows themselves are not read."""
    keys = set(stage.input_keys())
    done = root.table(stage.writes).made_from(stage.name) & keys
    tally = Tally(total=len(keys), done=len(done))
    for key, failure in newest_failures(root, stage.name).items():
        if key in keys and key not in done:
            tally.count(failure)
    return tally


class Ledger:
    """The state of one stage in one run."""

    def __init__(self, stage: Stage[Any, Any], root: Root, run_id: str) -> None:
        self._stage = stage
        self._root = root
        self._run_id = f"{run_id}/{stage.name}"
        self._done = root.table(stage.writes).made_from(stage.name)
        self._failures = newest_failures(root, stage.name)
        self._records: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []
        self._commits = 0
        self._last_commit = time.monotonic()
        self.tally = Tally()

    def pending(self) -> Iterator[tuple[Row, float]]:
        """Inputs that are not settled, each with the seconds to wait before it may be tried."""
        for row in self._stage.inputs():
            key = self._stage.key(row)
            self.tally.total += 1
            failure = self._failures.get(key)
            if key in self._done:
                self.tally.done += 1
                continue
            if failure is None:
                yield row, 0.0
                continue
            self.tally.count(failure)
            if failure.kind in FINISHED:
                continue
            due = failure.not_before or failure.when
            yield row, max(0.0, (due - now()).total_seconds())

    def key(self, row: Row) -> str:
        """The row's name in the ledger."""
        return self._stage.key(row)

    def attempts(self, row: Row, reason: str) -> int:
        """How often in a row an input failed for the same reason, last."""
        failure = self._failures.get(self._stage.key(row))
        return failure.attempts if failure and failure.reason == reason else 0

    def done(self, row: Row, outcome: Done) -> None:
        """Note a row's results."""
        key = self._stage.key(row)
        marks = {MADE_BY: self._stage.name, MADE_FROM: key}
        self._records.extend({**record, **marks} for record in outcome.records)
        earlier = self._failures.pop(key, None)
        if earlier:
            self.tally.count(earlier, by=-1)
        self.tally.done += 1

    def failed(self, row: Row, outcome: Failed, wait: float | None) -> None:
        """Note a row's failure; `wait` is the seconds to its next attempt, None where there is none."""
        key = self._stage.key(row)
        earlier = self._failures.get(key)
        if earlier:
            self.tally.count(earlier, by=-1)
        failure = Failure(
            stage=self._stage.name,
            id=key,
            kind=outcome.kind,
            reason=outcome.reason,
            message=outcome.message,
            attempts=self.attempts(row, outcome.reason) + 1,
            not_before=None if wait is None else now() + timedelta(seconds=wait),
        )
        self._failures[key] = failure
        self.tally.count(failure)
        self._failed.append({**failure.model_dump(), MADE_BY: self._stage.name, MADE_FROM: key})

    def commit(self) -> None:
        """Write what is settled to the tables: one commit of results, one of failures."""
        self._last_commit = time.monotonic()
        if not self._records and not self._failed:
            return
        commit = CommitId(self._run_id, self._commits)
        self._root.table(self._stage.writes).append(self._records, commit)
        self._root.table(Failure).append(self._failed, commit)
        self._commits += 1
        self._records, self._failed = [], []

    def commit_if_due(self, seconds: float, rows: int) -> None:
        """Commit if the last one is `seconds` ago or `rows` records wait."""
        waiting = len(self._records) + len(self._failed)
        if waiting >= rows or time.monotonic() - self._last_commit >= seconds:
            self.commit()
