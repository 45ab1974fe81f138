"""The loop: hand out pending rows, note what becomes of them, commit, until nothing is left."""

from __future__ import annotations

import heapq
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from sayso.engine.cluster import Cluster
from sayso.engine.interrupt import Interrupts
from sayso.engine.ledger import Ledger, Tally
from sayso.engine.outcome import DEADLY, Done, Failed, Fatal, Outcome
from sayso.engine.settings import EngineSettings
from sayso.errors import TooManyBugs
from sayso.root import Root
from sayso.rows import Row, Run
from sayso.stage import Stage
from sayso.tables import CommitId

if TYPE_CHECKING:
    from sayso.engine.pool import Pool

_POLL_SECONDS = 0.2
_FIGURES_SECONDS = 5.0


@dataclass
class Progress:
    """Where a stage stands; handed to `watch` a few times a second."""

    stage: str
    tally: Tally
    in_flight: int = 0
    settled: int = 0
    video_seconds: float = 0.0
    stored_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began in this run."""
        return time.monotonic() - self.started


Watch = Callable[[Progress], None]


class Engine:
    """Runs stages of one root, one after the other, in one connection to Ray. A context manager."""

    def __init__(self, root: Root, settings: EngineSettings, run_id: str | None = None) -> None:
        self.root = root
        self.settings = settings
        self.run_id = run_id or new_run_id()
        self._cluster = Cluster(settings)
        self._interrupts = Interrupts()

    def __enter__(self) -> Engine:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cluster.close()
        self._interrupts.__exit__()

    def run(self, stage: Stage[Any, Any], watch: Watch = lambda progress: None) -> Progress:
        """Run a stage over everything that is pending, and say what became of it.

        Raises what stops a run (UserError, WorkFailed, KeyboardInterrupt) after what was settled is committed.
        """
        self._interrupts.check()
        ledger = Ledger(stage, self.root, self.run_id)
        progress = Progress(stage.name, ledger.tally)
        queue = _Queue(ledger.pending(), self.settings.longest_wait)
        watch(progress)
        if not queue.empty:
            self._work(stage, ledger, queue, progress, watch)
        return progress

    def _work(self, stage: Stage[Any, Any], ledger: Ledger, queue: _Queue, progress: Progress, watch: Watch) -> None:
        self._cluster.connect()
        self._interrupts.install()
        from sayso.engine.pool import Pool

        figures = _Figures(self.root, self.run_id, progress)
        pool = Pool(stage, self._cluster.pool_size(stage.resources, len(queue)), self.settings)
        try:
            for _ in _loop(ledger, queue, pool, self.settings, progress):
                self._interrupts.check()
                watch(progress)
                figures.tick()
        finally:
            pool.close()
            ledger.commit()
            figures.tick(finished=True)
        watch(progress)


def new_run_id() -> str:
    """A name for a run: when it began, and something that no other run has."""
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"


class _Queue:
    """Rows to be handed out: those that are due, and those that wait."""

    def __init__(self, pending: Iterator[tuple[Row, float]], longest_wait: float) -> None:
        self._longest_wait = longest_wait
        self._due: deque[Row] = deque()
        self._waiting: list[tuple[float, int, Row]] = []
        self._tickets = count()
        for row, wait in pending:
            self.add(row, wait)

    @property
    def empty(self) -> bool:
        return not self._due and not self._waiting

    def __len__(self) -> int:
        return len(self._due) + len(self._waiting)

    def add(self, row: Row, wait: float) -> bool:
        """Queue a row that is due in `wait` seconds; False where that is left to the next run."""
        if wait > self._longest_wait:
            return False
        if wait <= 0:
            self._due.append(row)
        else:
            heapq.heappush(self._waiting, (time.monotonic() + wait, next(self._tickets), row))
        return True

    def pop(self) -> Row | None:
        """The next row that is due."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            self._due.append(heapq.heappop(self._waiting)[2])
        return self._due.popleft() if self._due else None

    def put_back(self, row: Row) -> None:
        self._due.appendleft(row)


def _loop(ledger: Ledger, queue: _Queue, pool: Pool, settings: EngineSettings, progress: Progress) -> Iterator[None]:
    """Yields a few times a second, until every row is settled or left to a later run."""
    judge = _Judge(ledger, queue, settings, progress)
    while not queue.empty or pool.in_flight:
        while (row := pool.take_back() or queue.pop()) is not None:
            if not pool.offer(row):
                queue.put_back(row)
                break
        if not pool.in_flight:
            time.sleep(_POLL_SECONDS)
        for row, outcome in pool.collect(_POLL_SECONDS):
            judge(row, outcome)
        progress.in_flight = pool.in_flight
        ledger.commit_if_due(settings.commit_seconds, settings.commit_rows)
        yield


class _Judge:
    """Decides what a row's outcome means: done, dropped, tried again, quarantined, or the end of the run."""

    def __init__(self, ledger: Ledger, queue: _Queue, settings: EngineSettings, progress: Progress) -> None:
        self._ledger = ledger
        self._queue = queue
        self._settings = settings
        self._progress = progress
        self._tried: Counter[str] = Counter()
        self._bugs: list[str] = []

    def __call__(self, row: Row, outcome: Outcome) -> None:
        if isinstance(outcome, Fatal):
            raise outcome.error
        self._progress.settled += 1
        if isinstance(outcome, Done):
            self._ledger.done(row, outcome)
            self._progress.video_seconds += outcome.video_seconds
            self._progress.stored_bytes += outcome.bytes
            self._bugs = []
        else:
            self._failed(row, outcome)

    def _failed(self, row: Row, failure: Failed) -> None:
        if failure.kind == "bug":
            self._bugs.append(failure.message)
        else:
            self._bugs = []
        if failure.kind == "retry":
            self._try_again(row, failure)
        else:
            self._ledger.failed(row, failure, wait=None)
        if len(self._bugs) >= self._settings.bugs_in_a_row:
            raise TooManyBugs(f"{len(self._bugs)} rows in a row failed with a traceback; the first:\n{self._bugs[0]}")

    def _try_again(self, row: Row, failure: Failed) -> None:
        key = self._ledger.key(row)
        self._tried[key] += 1
        tried = self._tried[key]
        if failure.reason in DEADLY and self._ledger.attempts(row, failure.reason) + 1 >= self._settings.attempts:
            message = f"quarantined after {self._settings.attempts} attempts: {failure.message}"
            self._ledger.failed(row, Failed("poison", failure.reason, message), wait=None)
            return
        wait = max(failure.after, self._settings.backoff * 2.0 ** (tried - 1) * random.uniform(0.8, 1.2))
        self._ledger.failed(row, failure, wait)
        if tried < self._settings.attempts:
            self._queue.add(row, wait)


class _Figures:
    """Writes a row of the runs table every few seconds."""

    def __init__(self, root: Root, run_id: str, progress: Progress) -> None:
        self._table = root.table(Run)
        self._run_id = run_id
        self._progress = progress
        self._written = 0
        self._last = time.monotonic()

    def tick(self, finished: bool = False) -> None:
        """Write figures if it is time to, or if this is the end."""
        if not finished and time.monotonic() - self._last < _FIGURES_SECONDS:
            return
        self._last = time.monotonic()
        progress, elapsed = self._progress, max(self._progress.elapsed, 1e-9)
        row = Run(
            run_id=self._run_id,
            stage=progress.stage,
            elapsed=elapsed,
            total=progress.tally.total,
            done=progress.tally.done,
            failed=progress.tally.failed.total(),
            in_flight=progress.in_flight,
            rows_per_second=progress.settled / elapsed,
            video_seconds=progress.video_seconds,
            video_seconds_per_second=progress.video_seconds / elapsed,
            bytes_per_second=progress.stored_bytes / elapsed,
            finished=finished,
        )
        marks = {"made_by": progress.stage, "made_from": self._run_id}
        self._table.append([{**row.model_dump(), **marks}], CommitId(f"{self._run_id}/{progress.stage}", self._written))
        self._written += 1
