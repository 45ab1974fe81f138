"""What was dropped or could not be done, grouped by stage and class with examples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from ops import show
from sayso.engine.failures import chosen, newest_failures, with_messages
from sayso.engine.inputs import open_failures
from sayso.errors import InputError
from sayso.root import Root
from sayso.rows import Failure
from sayso.stage import Stage
from shards.plan import PLAN


class FailureClass(BaseModel):
    """All rows of a stage that failed for the same reason; `last` is when the newest did."""

    stage: str
    kind: str
    reason: str
    count: int
    last: datetime
    examples: list[Failure]


def failures(
    root: Root,
    stages: Sequence[Stage[Any, Any]],
    only: str | None = None,
    *,
    kinds: Collection[str] = (),
    reasons: Collection[str] = (),
    examples: int = 3,
) -> list[FailureClass]:
    """The newest failures of inputs that are not done since, grouped; a stage's most frequent first.

    InputError where a stage, a kind or a class is named that is not there.
    """
    by_name = {stage.name: stage for stage in stages}
    found = {
        name: open_failures(root, by_name[name]) if name in by_name else newest_failures(root, name)
        for name in named(["discover", *by_name, PLAN], only)
    }
    check_named(found.values(), kinds=kinds, reasons=reasons)
    return [
        group
        for stage, rows in found.items()
        for group in _classes(root, stage, chosen(rows, kinds=kinds, reasons=reasons), examples)
    ]


def named(stages: Sequence[str], only: str | None) -> list[str]:
    """All stages, or the one that is asked for; InputError where there is none of that name."""
    if only is not None and only not in stages:
        raise InputError(f"--stage {only}: no such stage (there are {', '.join(stages)})")
    return list(stages) if only is None else [only]


def check_named(found: Collection[pa.Table], *, kinds: Collection[str], reasons: Collection[str]) -> None:
    """InputError where a kind or a class is named that none of these failures has; says which there are."""
    for option, column, asked in (("--kind", "kind", kinds), ("--class", "reason", reasons)):
        known = {value for rows in found for value in pc.unique(rows[column]).to_pylist()}
        for unknown in sorted(set(asked) - known):
            there = f"there are {', '.join(sorted(known))}" if known else "nothing was dropped and nothing failed"
            raise InputError(f"{option} {unknown}: no row has it ({there})")


def _classes(root: Root, stage: str, rows: pa.Table, examples: int) -> list[FailureClass]:
    groups = rows.group_by(["kind", "reason"]).aggregate([([], "count_all"), ("when", "max")]).to_pylist()
    groups.sort(key=lambda group: (-group["count_all"], group["kind"], group["reason"]))
    firsts = [_first_ids(rows, group["kind"], group["reason"], examples) for group in groups]
    shown = with_messages(root, stage, [key for keys in firsts for key in keys])
    return [
        FailureClass(
            stage=stage,
            kind=group["kind"],
            reason=group["reason"],
            count=group["count_all"],
            last=group["when_max"],
            examples=[shown[key] for key in keys if key in shown],
        )
        for group, keys in zip(groups, firsts, strict=True)
    ]


def _first_ids(rows: pa.Table, kind: str, reason: str, number: int) -> list[str]:
    ids = chosen(rows, kinds=[kind], reasons=[reason]).select(["id"])
    least: list[str] = ids.take(pc.select_k_unstable(ids, k=number, sort_keys=[("id", "ascending")]))["id"].to_pylist()
    return least


def show_failures(classes: Sequence[FailureClass]) -> None:
    """Print failure classes as a table, each with its first examples."""
    if not classes:
        show.out.print("nothing was dropped and nothing failed")
        return
    rows = []
    for group in classes:
        first = [group.stage, group.kind, group.reason, str(group.count), f"{group.last:%Y-%m-%d %H:%M} UTC"]
        for example in group.examples:
            rows.append([*first, example.id, _last_line(example.message)])
            first = [""] * len(first)
        if not group.examples:
            rows.append([*first, "", ""])
    columns = ["stage", "kind", "class", "rows", "last", "example", "message"]
    show.table("failures", columns, rows, right=frozenset({"rows"}))


def _last_line(message: str) -> str:
    """A traceback's last line says what happened."""
    return message.strip().rpartition("\n")[2]
