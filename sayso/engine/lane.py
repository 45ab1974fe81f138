"""One stage of a run: the rows that wait, what was tried, and what an outcome means."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sayso.engine.inputs import Tally
from sayso.engine.ledger import Ledger
from sayso.engine.outcome import DEADLY, NO_SPACE, STORAGE, Done, Failed, Fatal, Outcome
from sayso.engine.settings import EngineSettings
from sayso.errors import NoSpace, StorageError, TooManyBugs, WorkFailed
from sayso.patience import ride_out
from sayso.root import Root
from sayso.rows import Row
from sayso.stage import Stage

# Rows that are in memory ahead of their turn; keys of the others wait without them.
_BLOCK = 1000
# A look at the tables may take this share of the time between two looks.
_LOOK_SHARE = 0.05
# Even where this run commits nothing, another may have: tables are looked at again after this many seconds.
_LOOK_SECONDS = 30.0
# No batch is longer: its results are one answer, and its rows are done again if the worker dies.
_BATCH_ROWS = 64


@dataclass
class Progress:
    """Where a stage stands; handed to `watch` a few times a second.

    `queued` rows wait for a worker, `gated` ones for stages that must settle them first.
    """

    stage: str
    tally: Tally
    queued: int = 0
    gated: int = 0
    in_flight: int = 0
    workers: int = 0
    settled: int = 0
    video_seconds: float = 0.0
    stored_bytes: int = 0
    finished: bool = False
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began in this run, until it came to rest."""
        return (self.ended or time.monotonic()) - self.started


@dataclass(frozen=True)
class Batch:
    """Rows that are handed to a worker together; `limit` seconds may pass for them.

    `alone` is a row that was in a batch which took its worker down: nothing may be begun before its result is here.
    """

    rows: list[Row]
    limit: float
    alone: bool = False


class Lane:
    """A stage in a run. Not begun until `begin`."""

    def __init__(self, stage: Stage[Any, Any], root: Root, settings: EngineSettings) -> None:
        self.stage = stage
        self._root = root
        self._settings = settings
        self._ledger: Ledger | None = None
        self._waits = _Waits()
        self._tried: Counter[str] = Counter()
        self._in_a_row: list[Failed] = []
        self._mean_seconds: float | None = None
        self._looked = 0.0
        self._look_cost = 0.0
        self.stale = True
        """Whether a stage that this one reads from committed since the last look."""
        self.in_flight = 0
        self.progress = Progress(stage.name, Tally())

    @property
    def begun(self) -> bool:
        """Whether the stage has begun in this run."""
        return self._ledger is not None

    @property
    def uncommitted(self) -> int:
        """Records that wait for a commit."""
        return self._ledger.waiting if self._ledger else 0

    @property
    def queued(self) -> int:
        """Rows that may be handed out now or later."""
        return len(self._waits)

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, worked on or uncommitted."""
        return self.begun and not self.stale and not self.queued and not self.in_flight and not self.uncommitted

    def begin(self) -> None:
        """Count what there is to do."""
        self.stage.begin()
        self._ledger = Ledger(self.stage, self._root)
        self.progress = Progress(self.stage.name, self._ledger.tally)
        self.look()

    def look(self) -> None:
        """Take up the keys that became pending."""
        assert self._ledger
        began = time.monotonic()
        for key, wait in self._ledger.look():
            self._waits.add_key(key, wait, self._settings.longest_wait)
        self.progress.gated = self._ledger.gated
        self.stale = False
        self._looked = time.monotonic()
        self._look_cost = self._looked - began

    def look_if_due(self, hungry: bool) -> None:
        """Look where there may be something new; sooner where workers have nothing to do."""
        since = time.monotonic() - self._looked
        paid = since >= self._look_cost / _LOOK_SHARE
        if (self.stale and (paid or hungry)) or (paid and since >= _LOOK_SECONDS):
            self.look()

    def has_due(self) -> bool:
        """Whether a row could be handed out now."""
        self._fill()
        return self._waits.has_due()

    def next_batch(self) -> Batch | None:
        """The next rows to hand out, as many as take batch_seconds; None where none is due."""
        self._fill()
        most = 1
        if self._mean_seconds is not None:
            most = max(1, min(_BATCH_ROWS, int(self._settings.batch_seconds / max(self._mean_seconds, 1e-6))))
        rows, alone = self._waits.take(most)
        if not rows:
            return None
        self.in_flight += len(rows)
        # A batch is made of quick rows: one that needs its whole limit is not among them, or it breaks the batch up.
        return Batch(rows, max(self.stage.time_limit(row) for row in rows), alone)

    def _fill(self) -> None:
        keys = self._waits.keys_to_load(_BLOCK)
        if keys:
            rows = ride_out(lambda: list(self.stage.inputs(keys)), self._root.url, self._root.storage.patience)
            found = {self.stage.key(row): row for row in rows}
            # In the order of the keys, which is the order in which they came.
            self._waits.add_rows([found[key] for key in keys if key in found])

    def give_back(self, rows: list[Row], alone: bool = False) -> None:
        """Take back rows that were not begun; `alone` where one of them took its worker down and nobody knows which."""
        self.in_flight -= len(rows)
        self._waits.put_back(rows, alone)

    def timed(self, rows: int, seconds: float) -> None:
        """Note how long a batch took."""
        mean = seconds / rows
        self._mean_seconds = mean if self._mean_seconds is None else 0.8 * self._mean_seconds + 0.2 * mean

    def settle(self, row: Row, outcome: Outcome) -> None:
        """Done, dropped, to be tried again, quarantined, or the end of the run.

        Raises what ends a run: the error of a Fatal outcome, or the first of too many failures in a row.
        """
        assert self._ledger
        self.in_flight -= 1
        if isinstance(outcome, Fatal):
            raise outcome.error
        self.progress.settled += 1
        if isinstance(outcome, Done):
            self._ledger.done(row, outcome)
            self.progress.video_seconds += outcome.video_seconds
            self.progress.stored_bytes += outcome.bytes
            self._in_a_row = []
        elif outcome.kind == "retry":
            self._try_again(row, outcome)
        else:
            self._ledger.failed(row, outcome, wait=None)
        if isinstance(outcome, Failed):
            self._count_in_a_row(outcome)

    def _try_again(self, row: Row, failure: Failed) -> None:
        assert self._ledger
        key = self._ledger.key(row)
        self._tried[key] += 1
        tried = self._tried[key]
        if failure.reason in DEADLY and self._ledger.attempts(row, failure.reason) + 1 >= self._settings.attempts:
            message = f"quarantined after {self._settings.attempts} attempts: {failure.message}"
            self._ledger.failed(row, Failed("poison", failure.reason, message), wait=None)
            return
        base = self._settings.backoff_by_class.get(failure.reason, self._settings.backoff)
        wait = max(failure.after, base * 2.0 ** (tried - 1) * random.uniform(0.8, 1.2))
        self._ledger.failed(row, failure, wait)
        if tried < self._settings.attempts and wait <= self._settings.longest_wait:
            self._waits.add_row(row, wait, alone=failure.reason in DEADLY)

    def _count_in_a_row(self, failure: Failed) -> None:
        """Stop the run where the fault is not in the rows: many bugs in a row, or no space, or no storage."""
        if failure.kind != "bug" and failure.reason not in (STORAGE, NO_SPACE):
            self._in_a_row = []
            return
        self._in_a_row.append(failure)
        number = len(self._in_a_row)
        if number >= self._settings.bugs_in_a_row:
            raise _systematic(self._in_a_row[0], f"{self.stage.name}: {number} rows in a row failed")

    def commit(self) -> bool:
        """Commit what is settled; False where nothing was."""
        return self._ledger.commit() if self._ledger else False

    def finish(self) -> None:
        """The stage has come to rest in this run."""
        if not self.progress.finished:
            self.stage.end()
            self.progress.finished = True
            self.progress.ended = time.monotonic()

    def reopen(self) -> None:
        """A stage at rest has rows again."""
        self.progress.finished = False
        self.progress.ended = None


def _systematic(first: Failed, what: str) -> WorkFailed:
    if first.reason == NO_SPACE:
        return NoSpace(
            f"{what} for want of space: free some and run the same command again; the first: {first.message}"
        )
    if first.reason == STORAGE:
        return StorageError(f"{what} because the storage does not answer; the first: {first.message}")
    return TooManyBugs(f"{what} with a traceback; the first:\n{first.message}")


class _Waits:
    """Rows to be handed out: those that are due, those that must be alone in their batch, and those that wait.

    Keys come without their rows, which are looked up a block at a time.
    """

    def __init__(self) -> None:
        self._keys: deque[str] = deque()
        self._due: deque[Row] = deque()
        self._alone: deque[Row] = deque()
        self._later: list[tuple[float, int, Row | str, bool]] = []
        self._tickets = count()

    def __len__(self) -> int:
        return len(self._keys) + len(self._due) + len(self._alone) + len(self._later)

    def add_key(self, key: str, wait: float, longest_wait: float) -> None:
        """Queue a key; one that is due later than `longest_wait` seconds is left to the next run."""
        if wait <= 0:
            self._keys.append(key)
        elif wait <= longest_wait:
            heapq.heappush(self._later, (time.monotonic() + wait, next(self._tickets), key, False))

    def add_row(self, row: Row, wait: float, *, alone: bool) -> None:
        heapq.heappush(self._later, (time.monotonic() + wait, next(self._tickets), row, alone))

    def add_rows(self, rows: list[Row]) -> None:
        self._due.extend(rows)

    def keys_to_load(self, block: int) -> list[str]:
        """Keys whose rows are needed now; they are taken off."""
        self._wake()
        if self._due or not self._keys:
            return []
        return [self._keys.popleft() for _ in range(min(block, len(self._keys)))]

    def has_due(self) -> bool:
        return bool(self._due or self._alone)

    def take(self, most: int) -> tuple[list[Row], bool]:
        """The next rows, and whether it is one that must be alone."""
        if self._alone:
            return [self._alone.popleft()], True
        return [self._due.popleft() for _ in range(min(most, len(self._due)))], False

    def put_back(self, rows: list[Row], alone: bool) -> None:
        (self._alone if alone else self._due).extendleft(reversed(rows))

    def _wake(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            _, _, what, alone = heapq.heappop(self._later)
            if isinstance(what, str):
                self._keys.append(what)
            else:
                (self._alone if alone else self._due).append(what)
