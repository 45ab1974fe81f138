"""Rows and plain stages for tests that look at tables only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.root import Root
from sayso.rows import Failure, Row, Video
from sayso.stage import Stage

START = datetime.fromisoformat("2026-01-02T03:04:05+00:00")


class Copy(Stage[Video, Video]):
    """A stage from videos to videos, with failures under its name."""

    name = "copy"
    reads = Video
    writes = Video

    def __call__(self, row: Video) -> Sequence[Video]:
        """The same video."""
        return [row]


class Other(Copy):
    """Another one."""

    name = "other"


def put(root: Root, rows: Sequence[Row], made_by: str, made_from: str | None = None) -> None:
    """Append rows; by default each is made from its own key."""
    records = [
        {**row.model_dump(), MADE_BY: made_by, MADE_FROM: made_from or str(getattr(row, row.key_columns[0]))}
        for row in rows
    ]
    root.table(type(rows[0])).append(records)


def video(key: str) -> Video:
    """A video of which only the id matters."""
    return Video(video_id=key, url="u")


def failure(key: str, kind: str = "retry", reason: str = "http_429", minute: int = 0, **more: Any) -> Failure:
    """A failure of stage `copy`, so many minutes after START."""
    fields = {"stage": "copy", "message": "no", "attempts": 1, "when": START + timedelta(minutes=minute), **more}
    return Failure.model_validate({"id": key, "kind": kind, "reason": reason, **fields})
