"""A run's figures for Prometheus, through Ray: the agent of the driver's node serves them at /metrics.

    ray_sayso_rows_total{stage, outcome}     attempts that ended this way: done, dropped, failed
    ray_sayso_failures_total{stage, class}   inputs that came to count as failed
    ray_sayso_video_seconds_total{stage}     seconds of video in what was done
    ray_sayso_bytes_total{stage}             bytes stored
    ray_sayso_inputs, _done, _pending{stage}                     where the stage stands, earlier runs included
    ray_sayso_in_flight, _queued, _workers, _rows_per_second{stage}   what is going on
    ray_sayso_failed{stage, class}           inputs that count as failed now

All have the tag `run`. Totals begin at nothing with each run: what earlier runs settled is not in them.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sayso.engine.inputs import Tally

if TYPE_CHECKING:
    from ray.util.metrics import Counter as Total
    from ray.util.metrics import Gauge

_TOTALS = {
    "rows": ("attempts that ended this way", ("outcome",)),
    "failures": ("inputs that came to count as failed", ("class",)),
    "video_seconds": ("seconds of video in what was done", ()),
    "bytes": ("bytes stored", ()),
}
_GAUGES = {
    "inputs": ("inputs of the stage", ()),
    "done": ("inputs that are done", ()),
    "pending": ("inputs that are neither done, dropped nor failed", ()),
    "in_flight": ("rows that workers have", ()),
    "queued": ("rows that wait for a worker", ()),
    "workers": ("workers that may take this stage's rows", ()),
    "rows_per_second": ("rows settled a second over the last seconds", ()),
    "failed": ("inputs that count as failed", ("class",)),
}
# The gauge of rows a second is an average over at least so many seconds.
_SPEED_SECONDS = 10.0


class StageProgress(Protocol):
    """What the engine says of a stage a few times a second. All but the tally counts from the stage's begin."""

    stage: str
    tally: Tally
    queued: int
    in_flight: int
    workers: int
    settled: int
    video_seconds: float
    stored_bytes: int

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began in this run."""


@dataclass
class _Published:
    """What was said of a stage before, and how it stood when it was first seen."""

    totals: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    settled: int = 0
    done: int = 0
    dropped: int = 0
    speed_since: tuple[float, int] = (0.0, 0)


class Metrics:
    """Publishes how the stages of a run stand. Does nothing where this process has no connection to Ray."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._totals: dict[str, Total] = {}
        self._gauges: dict[str, Gauge] = {}
        self._stages: dict[str, _Published] = {}

    def publish(self, progress: StageProgress) -> None:
        """Say where a stage stands. Call it when the stage begins, then as often as it is known, and at the end."""
        tally = progress.tally
        dropped = tally.skipped.total()
        if progress.stage not in self._stages or not progress.settled:
            self._stages[progress.stage] = _Published(
                settled=progress.settled, done=tally.done, dropped=dropped, failed=Counter(tally.failed)
            )
        if not self._ready():
            return
        before = self._stages[progress.stage]
        ended = {"done": tally.done - before.done, "dropped": dropped - before.dropped}
        ended["failed"] = progress.settled - before.settled - sum(ended.values())
        for outcome, rows in ended.items():
            self._add(progress.stage, "rows", rows, outcome)
        self._add(progress.stage, "video_seconds", progress.video_seconds)
        self._add(progress.stage, "bytes", progress.stored_bytes)
        self._failures(progress.stage, tally.failed, before)
        self._gauge(progress, before)

    def _ready(self) -> bool:
        # Ray takes seconds to import: a run without a row to work on must not pay for figures.
        if "ray" not in sys.modules:
            return False
        import ray
        from ray.util.metrics import Counter as Total
        from ray.util.metrics import Gauge

        if ray.is_initialized() and not self._totals:
            for name, (meaning, tags) in _TOTALS.items():
                self._totals[name] = Total(f"sayso_{name}_total", meaning, ("run", "stage", *tags))
            for name, (meaning, tags) in _GAUGES.items():
                self._gauges[name] = Gauge(f"sayso_{name}", meaning, ("run", "stage", *tags))
        return bool(ray.is_initialized())

    def _add(self, stage: str, name: str, now: float, group: str = "") -> None:
        """Raise a total to what it is now; one that fell (a count was corrected) stays until it is passed."""
        before = self._stages[stage].totals
        more = now - before[name, group]
        if more <= 0:
            return
        before[name, group] += more  # type: ignore[assignment]  # seconds are counted too
        tag = {_TOTALS[name][1][0]: group} if group else {}
        self._totals[name].inc(more, {"run": self._run_id, "stage": stage, **tag})

    def _failures(self, stage: str, failed: Counter[str], before: _Published) -> None:
        for reason in failed.keys() | before.failed.keys():
            tags = {"run": self._run_id, "stage": stage, "class": reason}
            more = failed[reason] - before.failed[reason]
            if more > 0:
                self._totals["failures"].inc(more, tags)
            self._gauges["failed"].set(failed[reason], tags)
        before.failed = Counter({reason: failed[reason] for reason in failed.keys() | before.failed.keys()})

    def _gauge(self, progress: StageProgress, before: _Published) -> None:
        tags = {"run": self._run_id, "stage": progress.stage}
        values = {
            "inputs": progress.tally.total,
            "done": progress.tally.done,
            "pending": progress.tally.pending,
            "in_flight": progress.in_flight,
            "queued": progress.queued,
            "workers": progress.workers,
        }
        for name, value in values.items():
            self._gauges[name].set(value, tags)
        since, settled = before.speed_since
        if progress.elapsed - since >= _SPEED_SECONDS:
            self._gauges["rows_per_second"].set((progress.settled - settled) / (progress.elapsed - since), tags)
            before.speed_since = (progress.elapsed, progress.settled)
