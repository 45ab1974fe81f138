"""The loop: hand out pending rows of all stages, note what becomes of them, commit, until nothing is left.

    look (tables -> keys) -> hand out (rows -> workers) -> collect (outcomes) -> commit (-> tables) -> look ...

The stages of a run work at once, as a stream: what one commits, those that read it take up at their next look. The
tables are the only channel between them. Work that is further down the way goes first, and a stage pauses while those
it feeds have a backlog, so little lies between the stages.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.engine.cluster import Cluster
from sayso.engine.interrupt import Interrupts
from sayso.engine.lane import Lane, Progress
from sayso.engine.lease import lease
from sayso.engine.metrics import Metrics
from sayso.engine.settings import EngineSettings
from sayso.root import Root
from sayso.rows import ClassCount, Run
from sayso.stage import Resources, Stage

if TYPE_CHECKING:
    from sayso.engine.pool import Event, Pool

_POLL_SECONDS = 0.2
_FIT_SECONDS = 1.0
_START_SECONDS = 5.0
_FIGURES_SECONDS = 5.0
# Commits take no more than this share of the time, and figures as much again.
_COMMIT_SHARE = 0.005
# Where workers wait for what is not committed yet, it is committed after so many seconds.
_HUNGRY_SECONDS = 0.5

Watch = Callable[[Progress], None]


class Engine:
    """Runs stages of one root in one connection to Ray. A context manager."""

    def __init__(self, root: Root, settings: EngineSettings, run_id: str | None = None) -> None:
        self.root = root
        self.settings = settings
        self.run_id = run_id or new_run_id()
        self.commit_seconds = 0.0
        """Seconds spent in commits and in writing figures so far."""
        self._cluster = Cluster(settings)
        self._interrupts = Interrupts()
        self._held: set[str] = set()

    def __enter__(self) -> Engine:
        self._interrupts.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cluster.close()
        self._interrupts.__exit__()

    def pause(self, seconds: float) -> None:
        """Sleep; KeyboardInterrupt where a signal came."""
        time.sleep(seconds)
        self._interrupts.check()

    @contextmanager
    def hold(self, stages: Sequence[Stage[Any, Any]]) -> Iterator[None]:
        """Keep other runs off these stages for what is done before `run`, which does it by itself else.

        RootBusy where another run works on one of them.
        """
        names = [stage.name for stage in stages]
        if self._held.issuperset(names):
            yield
            return
        with lease(self.root, self.run_id, names, self.pause):
            self._held = set(names)
            try:
                yield
            finally:
                self._held = set()

    def run(self, stages: Sequence[Stage[Any, Any]], watch: Watch = lambda progress: None) -> list[Progress]:
        """Run stages, in the order of the data's way, over everything that is pending; what became of each.

        Raises what stops a run (UserError, WorkFailed, KeyboardInterrupt) after what was settled is committed;
        RootBusy where another run works on one of the stages.
        """
        self._interrupts.check()
        with self.hold(stages):
            stream = _Stream(self, stages, watch)
            try:
                stream.flow()
            finally:
                stream.close()
            return [lane.progress for lane in stream.lanes]

    def connect(self) -> Cluster:
        """Ray, started or joined when there is a first row to work on."""
        self._cluster.connect()
        self._interrupts.install()
        return self._cluster


def new_run_id() -> str:
    """A name for a run: when it began, and something that no other run has."""
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"


class _Stream:
    """The stages of one run, at work."""

    def __init__(self, engine: Engine, stages: Sequence[Stage[Any, Any]], watch: Watch) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._watch = watch
        self.lanes = [Lane(stage, engine.root, engine.settings) for stage in stages]
        self._lane_of = {lane.stage.name: lane for lane in self.lanes}
        self._pool: Pool | None = None
        self._opened = 0.0
        self._fitted = 0.0
        self._commits = _Commits()
        self._commit_failed = False
        self._figures = _Figures(engine.root, engine.run_id)

    def flow(self) -> None:
        """Work until all stages have come to rest."""
        self._begin_ready()
        while not all(lane.progress.finished for lane in self.lanes):
            self._engine.pause(0)
            self._hand_out()
            for event in self._collect():
                self._note(event)
            self._commit_if_due()
            self._begin_ready()
            self._report()

    def _begin_ready(self) -> None:
        """Begin stages, look for new rows, and let those that nothing is left for come to rest; upstream first.

        One stage begins a turn: counting millions of keys takes a while, and the rows of those before can be at work.
        """
        # Nor does one begin while the first workers come up, so that the first rows do not wait for its counting.
        above_rest, enough = True, self._starting
        for lane in self.lanes:
            if not lane.begun and not enough and (above_rest or not lane.stage.whole):
                lane.begin()
                enough = True
                self._figures.begin(lane)
                self._watch(lane.progress)
            elif lane.begun:
                lane.look_if_due(hungry=self._hungry)
            if above_rest and lane.idle and not lane.progress.finished:
                lane.finish()
                self._report_lane(lane)
                self._figures.write(self.lanes)
            elif lane.progress.finished and not lane.idle:
                lane.reopen()
            above_rest = above_rest and lane.idle

    @property
    def _starting(self) -> bool:
        """Whether the first rows wait for the first workers to come up, which take them in a moment."""
        if self._pool is None or time.monotonic() - self._opened > _START_SECONDS:
            return False
        return not any(lane.in_flight for lane in self.lanes)

    @property
    def _hungry(self) -> bool:
        """Whether workers could do more than is queued."""
        if self._pool is None:
            return True
        return any(self._pool.has_room(lane.stage.resources) for lane in self.lanes)

    def _hand_out(self) -> None:
        """Give rows to workers, those furthest down the way first."""
        if self._pool is None and not any(lane.queued for lane in self.lanes):
            return
        pool = self._pool or self._open_pool()
        if time.monotonic() - self._fitted > _FIT_SECONDS:
            self._fit(pool)
        for lane in reversed(self.lanes):
            while not self._held_back(lane) and pool.has_room(lane.stage.resources) and (batch := lane.next_batch()):
                taken = pool.offer(lane.stage.name, batch)
                assert taken, "a worker had room"

    def _open_pool(self) -> Pool:
        cluster = self._engine.connect()
        from sayso.engine.pool import Pool

        self._pool = Pool({lane.stage.name: lane.stage for lane in self.lanes}, cluster, self._settings)
        self._opened = time.monotonic()
        return self._pool

    def _fit(self, pool: Pool) -> None:
        wanted: Counter[Resources] = Counter()
        pausing: set[Resources] = set()
        for lane in self.lanes:
            if lane.queued or lane.in_flight:
                wanted[lane.stage.resources] += lane.queued + lane.in_flight
                if self._held_back(lane):
                    pausing.add(lane.stage.resources)
        active = {lane.stage.resources for lane in self.lanes if lane.queued and not self._held_back(lane)}
        pool.fit(wanted, pausing - active)
        for needs in wanted:
            pool.check_nodes(needs)
        self._fitted = time.monotonic()

    def _held_back(self, lane: Lane) -> bool:
        """Back-pressure: whether a stage that this one feeds has more before it than it should."""
        fed = (each for each in self.lanes if _feeds(lane.stage, each.stage) and not each.stage.whole)
        return any(each.queued + lane.uncommitted > self._settings.backlog_rows for each in fed)

    def _collect(self) -> list[Event]:
        if self._pool is None:
            return []
        return self._pool.collect(_POLL_SECONDS)

    def _note(self, event: Event) -> None:
        from sayso.engine.pool import Returned, Settled, Timed

        lane = self._lane_of[event.stage]
        match event:
            case Settled():
                lane.settle(event.row, event.outcome)
            case Timed():
                lane.timed(event.rows, event.seconds)
            case Returned():
                lane.give_back(event.rows, event.alone)

    def _commit_if_due(self) -> None:
        waiting = sum(lane.uncommitted for lane in self.lanes)
        if not waiting:
            return
        more = any(lane.has_due() and not self._held_back(lane) for lane in self.lanes)
        nothing_else = not more and not any(lane.in_flight for lane in self.lanes)
        hungry = self._hungry and not more
        if (
            self._commits.due(self._settings.commit_seconds, hungry)
            or nothing_else
            or (waiting >= self._settings.commit_rows)
        ):
            self._commit()

    def _commit(self) -> None:
        # What cannot be committed now is done again by the next run; trying once more at the end would only delay it.
        self._commit_failed = True
        with self._commits:
            for lane in self.lanes:
                if lane.commit():
                    for reader in self.lanes:
                        reader.stale = reader.stale or _feeds(lane.stage, reader.stage)
        self._commit_failed = False
        self._engine.commit_seconds += self._commits.cost

    def _report(self) -> None:
        for lane in self.lanes:
            if lane.begun and not lane.progress.finished:
                self._report_lane(lane)
        self._figures.write_if_due(self.lanes)

    def _report_lane(self, lane: Lane) -> None:
        progress = lane.progress
        progress.queued, progress.in_flight = lane.queued, lane.in_flight
        progress.workers = self._pool.workers(lane.stage.resources) if self._pool else 0
        self._watch(progress)

    def close(self) -> None:
        """End the workers, and commit what was settled before something ended the run."""
        if self._pool:
            self._pool.close()
        if not self._commit_failed:
            self._commit()
            self._figures.write(self.lanes, last=True)
        self._engine.commit_seconds += self._figures.seconds


def _feeds(stage: Stage[Any, Any], reader: Stage[Any, Any]) -> bool:
    return stage.writes is reader.reads or stage.name in reader.after


class _Commits:
    """When to commit: often enough to lose little, seldom enough to cost little. Entered around a commit."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.cost = 0.0
        self._began = 0.0

    def due(self, seconds: float, hungry: bool) -> bool:
        """Whether it is time; sooner where workers are `hungry` for what is not committed."""
        since = time.monotonic() - self._last
        return since >= (_HUNGRY_SECONDS if hungry else max(seconds, self.cost / _COMMIT_SHARE))

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self._last = time.monotonic()
        self.cost = self._last - self._began


class _Figures:
    """Writes rows of the runs table every few seconds, and the metrics for Prometheus."""

    def __init__(self, root: Root, run_id: str) -> None:
        self._table = root.table(Run)
        self._run_id = run_id
        self._last = time.monotonic()
        self._cost = 0.0
        self.seconds = 0.0
        self._written: set[str] = set()
        self._metrics = Metrics(run_id)

    def begin(self, lane: Lane) -> None:
        """Note where a stage stands when it begins: what is counted from now on is this run's."""
        self._metrics.publish(lane.progress)

    def write_if_due(self, lanes: Sequence[Lane]) -> None:
        """Write figures if it is time to."""
        if time.monotonic() - self._last >= max(_FIGURES_SECONDS, self._cost / _COMMIT_SHARE):
            self.write(lanes)

    def write(self, lanes: Sequence[Lane], last: bool = False) -> None:
        """Write the figures of stages at work, and once more those of each that came to rest."""
        began = time.monotonic()
        due = [lane.progress for lane in lanes if lane.begun and lane.stage.name not in self._written]
        for progress in due:
            self._metrics.publish(progress)
        marks = {MADE_BY: "engine", MADE_FROM: self._run_id}
        rows = [_figures(self._run_id, progress, last) for progress in due if progress.settled or progress.queued]
        self._table.append([{**row.model_dump(), **marks} for row in rows])
        self._written = {lane.stage.name for lane in lanes if lane.progress.finished}
        self._last = time.monotonic()
        self._cost = self._last - began
        self.seconds += self._cost


def _figures(run_id: str, progress: Progress, last: bool) -> Run:
    elapsed = max(progress.elapsed, 1e-9)
    return Run(
        run_id=run_id,
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
        finished=last or progress.finished,
        queued=progress.queued,
        workers=progress.workers,
        failed_by_class=[ClassCount(reason=reason, count=count) for reason, count in progress.tally.failed.items()],
    )
