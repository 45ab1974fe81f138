"""Where a data set stands, a stage: total, done, dropped by reason, failed by class, time, x real time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from ops import show
from sayso.engine.failures import newest_failures
from sayso.engine.inputs import stage_tally
from sayso.root import Root
from sayso.sql import Sql
from sayso.stage import Stage
from shards.plan import PLAN


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
    left_out: dict[str, int]
    """Videos that planning left out of the shards, by reason."""


def status(root: Root, stages: Sequence[Stage[Any, Any]]) -> Status:
    """Count what the tables say, at one moment. Nothing is started, and no row becomes an object."""
    sql = Sql(root)
    times = _times(sql)
    found = [_discover_status(root, sql, times), *(_stage_status(root, stage, sql, times) for stage in stages)]
    left_out = Counter(newest_failures(root, PLAN)["reason"].to_pylist())
    return Status(root=root.url, stages=found, narrations=_narrations(sql), left_out=dict(left_out))


def _discover_status(root: Root, sql: Sql, times: dict[str, tuple[float, float]]) -> StageStatus:
    found = sql.number("SELECT count(*) FROM videos") + sql.number("SELECT count(*) FROM pages")
    failed = Counter(newest_failures(root, "discover")["reason"].to_pylist())
    seconds, _ = times.get("discover", (0.0, 0.0))
    total = found + failed.total()
    return StageStatus(name="discover", total=total, done=found, pending=0, skipped={}, failed=failed, seconds=seconds)


def _stage_status(root: Root, stage: Stage[Any, Any], sql: Sql, times: dict[str, tuple[float, float]]) -> StageStatus:
    tally = stage_tally(root, stage, sql)
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


def _times(sql: Sql) -> dict[str, tuple[float, float]]:
    """Wall seconds and video seconds of each stage, added up over its runs: both only grow while a run lasts."""
    sums = sql.ask("""
        SELECT stage, sum(seconds) AS seconds, sum(video_seconds) AS video_seconds FROM (
            SELECT run_id, stage, max(elapsed) AS seconds, max(video_seconds) AS video_seconds
            FROM runs GROUP BY run_id, stage
        ) GROUP BY stage
    """)
    return {row["stage"]: (row["seconds"], row["video_seconds"]) for row in sums.to_pylist()}


def _narrations(sql: Sql) -> NarrationStatus:
    groups = sql.ask("SELECT kept, reason, count(*) AS n FROM narrations GROUP BY kept, reason").to_pylist()
    kept = sum(group["n"] for group in groups if group["kept"])
    return NarrationStatus(kept=kept, dropped={group["reason"]: group["n"] for group in groups if not group["kept"]})


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
    dropped = show.counts(found.narrations.dropped)
    if found.narrations.kept or dropped or any(stage.name == "align" for stage in found.stages):
        show.out.print(f"narrations: {found.narrations.kept} kept; dropped: {dropped or 'none'}")
    if found.left_out:
        show.out.print(f"videos left out of shards: {show.counts(found.left_out)}")
