"""Where a data set stands, a stage: total, done, dropped by reason, failed by class, time, x real time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc
from pydantic import BaseModel

from ops import show
from sayso.engine.ledger import newest_failures, stage_tally
from sayso.root import Root
from sayso.rows import Narration, Run, Video
from sayso.stage import Stage


class StageStatus(BaseModel):
    """A stage's inputs, counted; seconds are wall time over all runs."""

    name: str
    total: int
    done: int
    pending: int
    skipped: dict[str, int]
    failed: dict[str, int]
    seconds: float = 0.0
    video_seconds: float = 0.0
    x_realtime: float | None = None


class NarrationStatus(BaseModel):
    """Sentences kept, and dropped by reason."""

    kept: int
    dropped: dict[str, int]


class Status(BaseModel):
    """A data set at a glance."""

    root: str
    stages: list[StageStatus]
    narrations: NarrationStatus


def status(root: Root, stages: Sequence[Stage[Any, Any]]) -> Status:
    """Count what the tables say. Reads tables only; nothing is started."""
    times = _times(root)
    found = [_discover_status(root, times), *(_stage_status(root, stage, times) for stage in stages)]
    return Status(root=root.url, stages=found, narrations=_narrations(root))


def _discover_status(root: Root, times: dict[str, tuple[float, float]]) -> StageStatus:
    videos = root.table(Video).read(["video_id"]).num_rows
    failed = Counter(failure.reason for failure in newest_failures(root, "discover").values())
    total = videos + failed.total()
    seconds, _ = times.get("discover", (0.0, 0.0))
    return StageStatus(
        name="discover", total=total, done=videos, pending=0, skipped={}, failed=dict(failed), seconds=seconds
    )


def _stage_status(root: Root, stage: Stage[Any, Any], times: dict[str, tuple[float, float]]) -> StageStatus:
    tally = stage_tally(root, stage)
    seconds, video_seconds = times.get(stage.name, (0.0, 0.0))
    return StageStatus(
        name=stage.name,
        total=tally.total,
        done=tally.done,
        pending=tally.pending,
        skipped=dict(tally.skipped),
        failed=dict(tally.failed),
        seconds=seconds,
        video_seconds=video_seconds,
        x_realtime=video_seconds / seconds if seconds and video_seconds else None,
    )


def _times(root: Root) -> dict[str, tuple[float, float]]:
    """Wall seconds and video seconds of each stage, added up over its runs."""
    last: dict[tuple[str, str], Run] = {}
    for run in root.table(Run).rows():
        known = last.get((run.run_id, run.stage))
        if known is None or run.elapsed > known.elapsed:
            last[run.run_id, run.stage] = run
    sums: dict[str, tuple[float, float]] = {}
    for run in last.values():
        seconds, video_seconds = sums.get(run.stage, (0.0, 0.0))
        sums[run.stage] = (seconds + run.elapsed, video_seconds + run.video_seconds)
    return sums


def _narrations(root: Root) -> NarrationStatus:
    table = root.table(Narration).read(["kept", "reason"])
    kept = pc.sum(table["kept"]).as_py() or 0
    dropped = Counter(table.filter(pc.invert(table["kept"]))["reason"].to_pylist())
    return NarrationStatus(kept=kept, dropped=dict(dropped))


def show_status(found: Status) -> None:
    """Print a status as a table."""
    columns = ["stage", "total", "done", "pending", "dropped", "failed", "time", "x real time"]
    rows = [
        [
            stage.name,
            str(stage.total),
            str(stage.done),
            str(stage.pending),
            show.counts(stage.skipped),
            show.counts(stage.failed),
            show.duration(stage.seconds) if stage.seconds else "",
            f"{stage.x_realtime:.1f}" if stage.x_realtime else "",
        ]
        for stage in found.stages
    ]
    show.table(found.root, columns, rows, right=frozenset({"total", "done", "pending", "time", "x real time"}))
    dropped = show.counts(found.narrations.dropped) or "none"
    show.out.print(f"narrations: {found.narrations.kept} kept; dropped: {dropped}")
