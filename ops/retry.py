"""Asking for failures to be tried again: a row is appended for each that takes it back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from ops import show
from ops.failures import check_named, named
from sayso.engine.failures import ask_again, chosen
from sayso.engine.inputs import open_failures
from sayso.engine.lease import lease
from sayso.engine.run import new_run_id
from sayso.errors import InputError
from sayso.root import Root
from sayso.stage import Stage


class Asked(BaseModel):
    """How many rows of a stage, a kind and a class are to be tried again."""

    stage: str
    kind: str
    reason: str
    rows: int


def retry(
    root: Root,
    stages: Sequence[Stage[Any, Any]],
    only: str | None = None,
    *,
    kinds: Collection[str] = (),
    reasons: Collection[str] = (),
    ids: Collection[str] = (),
    dry_run: bool = False,
) -> list[Asked]:
    """Make failures pending again, and those due at once that wait for a later time.

    What was dropped by policy (kind skip) is asked again only where a kind, a class or an id is named: its reason is
    still there. InputError where a stage, a kind, a class or an id is named that is not there.
    """
    by_name = {stage.name: stage for stage in stages}
    chosen_names = named(list(by_name), only)
    # Not beside a `sayso forget`, which removes all files that no version of a table names yet.
    with nullcontext() if dry_run else lease(root, f"{new_run_id()}-retry", ["retry"]):
        found = {name: open_failures(root, by_name[name]) for name in chosen_names}
        check_named(found.values(), kinds=kinds, reasons=reasons)
        _check_ids(found, ids)
        asked = []
        for name, rows in found.items():
            rows = chosen(rows, kinds=kinds, reasons=reasons, ids=ids)
            if not (kinds or reasons or ids):
                rows = rows.filter(pc.not_equal(rows["kind"], "skip"))
            asked += _counted(name, rows)
            if not dry_run:
                ask_again(root, name, rows)
        return asked


def _check_ids(found: Mapping[str, pa.Table], ids: Collection[str]) -> None:
    known = {key for rows in found.values() for key in chosen(rows, ids=ids)["id"].to_pylist()} if ids else set()
    for unknown in sorted(set(ids) - known):
        raise InputError(
            f"--id {unknown}: nothing failed under this id in {', '.join(found)} (`sayso failures` shows ids)"
        )


def _counted(stage: str, rows: pa.Table) -> list[Asked]:
    groups = rows.group_by(["kind", "reason"]).aggregate([([], "count_all")]).to_pylist()
    groups.sort(key=lambda group: (-group["count_all"], group["kind"], group["reason"]))
    return [Asked(stage=stage, kind=group["kind"], reason=group["reason"], rows=group["count_all"]) for group in groups]


def show_asked(asked: Sequence[Asked], *, dry_run: bool) -> None:
    """Say what was asked for, a line a stage and class."""
    for each in asked:
        show.out.print(f"{each.stage}: {each.rows} of {each.reason} ({each.kind})", highlight=False)
    total = sum(each.rows for each in asked)
    if not total:
        show.out.print("nothing to try again")
    elif dry_run:
        show.out.print(f"{total} would be pending again", highlight=False)
    else:
        show.out.print(f"{total} pending again: the next `sayso run` tries them", highlight=False)
