"""One row of one stage, in this process, without Ray: to see with one's own eyes why it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sayso.engine import attempt
from sayso.engine.outcome import Done, Failed
from sayso.errors import InputError
from sayso.stage import Stage


def replay(stages: Sequence[Stage[Any, Any]], name: str, row_id: str) -> dict[str, Any]:
    """Try a row and say what came of it. Objects are written under their keys as always; tables are left alone.

    Raises InputError where there is no such stage or row.
    """
    stage = next((stage for stage in stages if stage.name == name), None)
    if stage is None:
        raise InputError(f"no stage {name}; there are {', '.join(stage.name for stage in stages)}")
    row = next(iter(stage.inputs([row_id])), None)
    if row is None:
        raise InputError(f"{name} has no input {row_id}; `sayso failures` shows the ids of those that failed")
    stage.open()
    outcome = attempt(stage, row)
    answer: dict[str, Any] = {"stage": name, "id": row_id}
    match outcome:
        case Done():
            return {**answer, "outcome": "done", "rows": outcome.records}
        case Failed():
            return {**answer, "outcome": outcome.kind, "reason": outcome.reason, "message": outcome.message}
    raise outcome.error
