"""A run as it goes: `sayso status --watch`.

The figures that runs write every few seconds are read at each look, and only the newest of them; the tables are
counted now and then, for what no run works on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

from pydantic import BaseModel
from rich.console import RenderableType
from rich.live import Live
from rich.table import Table

from ops import show
from sayso.engine.inputs import Tally, stage_tally
from sayso.engine.interrupt import Interrupts
from sayso.root import Root
from sayso.rows import Run, now
from sayso.sql import Sql
from sayso.stage import Stage

# A signal is looked for so often.
_NAP_SECONDS = 0.1
# Speeds are those of the last minute.
_WINDOW = 60.0
# A run writes every few seconds, or more seldom where writing is slow. One that wrote nothing for half a minute, nor
# for three times as long as between its last two rows, is not alive.
_SILENT = 30.0
_SILENT_GAPS = 3
# Rows older than this are not looked at, which spares reading what days of running wrote.
_LOOK_BACK = 300.0
_TALLY_SECONDS = 30.0


class StageNow(BaseModel):
    """A stage at a moment. What only a run knows is None where none works on the stage."""

    name: str
    total: int
    done: int
    pending: int
    skipped: dict[str, int]
    failed: dict[str, int]
    run_id: str | None = None
    queued: int | None = None
    in_flight: int | None = None
    workers: int | None = None
    rows_per_second: float | None = None
    video_seconds_per_second: float | None = None
    seconds_left: float | None = None


class Now(BaseModel):
    """A data set at a moment; `runs` are those that are alive."""

    root: str
    time: datetime
    runs: list[str]
    stages: list[StageNow]


class Watcher:
    """Looks at a data set again and again."""

    def __init__(self, root: Root, stages: Sequence[Stage[Any, Any]]) -> None:
        self._root = root
        self._stages = stages
        self._tallies: dict[str, Tally] = {}
        self._counted = 0.0
        self._alive: set[str] = set()

    def look(self) -> Now:
        """How things stand."""
        present = now()
        recent = recent_figures(self._root, present)
        self._count(set(recent))
        stages = [stage_now(stage.name, self._tallies[stage.name], recent.get(stage.name)) for stage in self._stages]
        runs = sorted({figures[-1].run_id for figures in recent.values()})
        return Now(root=self._root.url, time=present, runs=runs, stages=stages)

    def _count(self, alive: set[str]) -> None:
        """Count the tables if that is due, or if a stage that was worked on came to rest."""
        due = not self._counted or time.monotonic() - self._counted >= _TALLY_SECONDS or self._alive - alive
        self._alive = alive
        if due:
            sql = Sql(self._root)
            self._tallies = {stage.name: stage_tally(self._root, stage, sql) for stage in self._stages}
            self._counted = time.monotonic()


def recent_figures(root: Root, present: datetime) -> dict[str, list[Run]]:
    """The last minutes' figures, the newest last, of each stage that a run works on now."""
    since = present - timedelta(seconds=_LOOK_BACK)
    query = f"SELECT * FROM runs WHERE time > '{since.isoformat()}' ORDER BY time"  # noqa: S608  # a time of our own
    rows = [_figures(record) for record in Sql(root, [Run]).ask(query).to_pylist()]
    newest = {row.stage: row for row in rows}
    found = {
        stage: [row for row in rows if row.stage == stage and row.run_id == last.run_id]
        for stage, last in newest.items()
    }
    return {stage: figures for stage, figures in found.items() if _alive(figures, present)}


def _alive(figures: Sequence[Run], present: datetime) -> bool:
    gap = (figures[-1].time - figures[-2].time).total_seconds() if len(figures) > 1 else 0.0
    silent = (present - figures[-1].time).total_seconds()
    return not figures[-1].finished and silent < max(_SILENT, _SILENT_GAPS * gap)


def _figures(record: Mapping[str, Any]) -> Run:
    """A row of runs; tables of older versions lack some columns."""
    return Run.model_validate({name: record[name] for name in Run.model_fields if name in record})


def stage_now(name: str, tally: Tally, figures: Sequence[Run] | None) -> StageNow:
    """A stage from the newest count of its tables and, where a run works on it, that run's figures."""
    known = StageNow(
        name=name,
        total=tally.total,
        done=tally.done,
        pending=tally.pending,
        skipped=dict(tally.skipped),
        failed=dict(tally.failed),
    )
    if not figures:
        return known
    last = figures[-1]
    pending = max(0, last.total - last.done - last.failed - tally.skipped.total())
    rows, seconds = speeds(figures)
    by_class = last.failed_by_class
    return known.model_copy(
        update={
            "total": last.total,
            "done": last.done,
            "pending": pending,
            "failed": known.failed if by_class is None else {each.reason: each.count for each in by_class},
            "run_id": last.run_id,
            "queued": last.queued,
            "in_flight": last.in_flight,
            "workers": last.workers,
            "rows_per_second": rows,
            "video_seconds_per_second": seconds,
            "seconds_left": show.seconds_left(pending, rows),
        }
    )


def speeds(figures: Sequence[Run]) -> tuple[float, float]:
    """Rows and video seconds a second over the last minute, or since the stage began if that is later."""
    last = figures[-1]
    rows, video_seconds, elapsed = last.rows_per_second * last.elapsed, last.video_seconds, last.elapsed
    before = [row for row in figures if last.elapsed - row.elapsed >= _WINDOW]
    first = before[-1] if before else figures[0]
    if last.elapsed > _WINDOW and first is not last:
        rows -= first.rows_per_second * first.elapsed
        video_seconds -= first.video_seconds
        elapsed -= first.elapsed
    return (max(0.0, rows / elapsed), max(0.0, video_seconds / elapsed)) if elapsed > 0 else (0.0, 0.0)


def watch(root: Root, stages: Sequence[Stage[Any, Any]], every: float, *, as_json: bool) -> None:
    """Show how things stand every few seconds until Ctrl-C, which is the usual end of it."""
    watcher = Watcher(root, stages)
    try:
        if as_json:
            _repeat(every, lambda: _print_line(watcher.look()))
        elif show.out.is_terminal:
            with Live(console=show.out, auto_refresh=False) as live:
                _repeat(every, lambda: live.update(_sheet(watcher.look()), refresh=True))
        else:
            _repeat(every, lambda: show.out.print(_sheet(watcher.look())))
    except KeyboardInterrupt:
        return


def _repeat(every: float, look: Callable[[], None]) -> NoReturn:
    # Raised anywhere, a KeyboardInterrupt may be lost in a callback out of native code: it is noted, and raised here.
    with Interrupts() as interrupts:
        while True:
            began = time.monotonic()
            look()
            interrupts.check()
            while time.monotonic() - began < every:
                time.sleep(min(_NAP_SECONDS, every))
                interrupts.check()


def _print_line(present: Now) -> None:
    sys.stdout.write(present.model_dump_json() + "\n")
    sys.stdout.flush()


def _sheet(present: Now) -> RenderableType:
    runs = f"running: {', '.join(present.runs)}" if present.runs else "no run is alive"
    sheet = Table(title=f"{present.root}  {present.time:%H:%M:%S} UTC  {runs}", title_justify="left")
    for name in ("stage", "done", "of", "pending", "queue", "in flight", "workers", "rows/s", "video s/s", "left"):
        sheet.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    sheet.add_column("failed", overflow="fold")
    for stage in present.stages:
        sheet.add_row(*_cells(stage))
    return sheet


def _cells(stage: StageNow) -> list[str]:
    counted = [str(stage.done), str(stage.total), str(stage.pending)]
    live = [_number(stage.queued), _number(stage.in_flight), _number(stage.workers)]
    speed = [_number(stage.rows_per_second), _number(stage.video_seconds_per_second)]
    left = "" if not stage.pending else "—" if stage.seconds_left is None else show.duration(stage.seconds_left)
    return [stage.name, *counted, *live, *speed, left, show.counts(stage.failed)]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.1f}"
