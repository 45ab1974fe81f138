"""What could not be done: the newest failure of each input, and asking again.

Millions of rows may be dropped (a video without captions is): they are counted and matched by Delta Lake's engine,
never turned into objects one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sayso.arrow import MADE_BY, MADE_FROM, from_arrow
from sayso.root import Root
from sayso.rows import Failure, now
from sayso.sql import Sql, text, texts

# Kinds that are never tried again unless somebody asks for it.
FINISHED = frozenset({"skip", "permanent", "poison"})
# Kinds after which stages that wait for this key wait no longer. A bug is tried again, but not in this run.
SETTLED = FINISHED | {"bug"}
# Takes back what was said before.
AGAIN = "again"

_COLUMNS = ("id", "kind", "reason", "attempts", "when", "not_before")
# Orders the failures of an id: by microseconds, then by attempts.
_RANK = 'CAST("when" AS BIGINT) * 1000 + LEAST(attempts, 999)'
# Failures that are asked again in one commit.
_BLOCK = 50_000


def newest_failures(root: Root, stage: str, messages: bool = False) -> pa.Table:
    """The newest failure of each input of a stage: id, kind, reason, attempts, when, not_before, and the message if
    asked for. Inputs that somebody asked to be tried again are left out.
    """
    return Sql(root, [Failure]).ask(newest(stage, [*_COLUMNS, "message"] if messages else _COLUMNS))


def with_messages(root: Root, stage: str, ids: Collection[str]) -> dict[str, Failure]:
    """The newest failures of a few inputs as they were written."""
    if not ids:
        return {}
    query = f"SELECT * FROM ({newest(stage, list(Failure.model_fields))}) WHERE id IN {texts(ids)}"  # noqa: S608
    return {row.id: row for row in from_arrow(Failure, Sql(root, [Failure]).ask(query))}


def chosen(
    failures: pa.Table, kinds: Collection[str] = (), reasons: Collection[str] = (), ids: Collection[str] = ()
) -> pa.Table:
    """Those failures that are of one of these kinds, classes and ids; any where none is named."""
    for column, asked in (("kind", kinds), ("reason", reasons), ("id", ids)):
        if asked:
            failures = failures.filter(pc.is_in(failures[column], value_set=pa.array(sorted(asked), pa.string())))
    return failures


def ask_again(root: Root, stage: str, failures: pa.Table) -> int:
    """Take failures of a stage back, so that its next run tries their inputs at once; how many there were.

    A run that works on the stage meanwhile is not disturbed; the one after it takes them up.
    """
    present = now()
    for start in range(0, len(failures), _BLOCK):
        block = failures.slice(start, _BLOCK).select(["id", "reason", "when"]).to_pylist()
        records = [_again(stage, row["id"], row["reason"], max(present, row["when"])) for row in block]
        root.table(Failure).append(records)
    return len(failures)


def _again(stage: str, key: str, reason: str, when: datetime) -> dict[str, Any]:
    # Later than what it takes back, though the clock of the machine that wrote that may go ahead of ours.
    row = {"stage": stage, "id": key, "kind": AGAIN, "reason": reason, "message": "asked again", "attempts": 0}
    return {**row, "when": when + timedelta(microseconds=1), "not_before": None, MADE_BY: stage, MADE_FROM: key}


def newest(stage: str, columns: Sequence[str] = _COLUMNS) -> str:
    """SQL for the newest failures of a stage.

    Nearly every id has one failure. Only for those with several the newest is looked for, which spares a sort.
    """
    wanted = ", ".join(f'f."{name}"' for name in columns)
    return f"""
        SELECT {wanted} FROM (
            SELECT id, max({_RANK}) AS best FROM failures WHERE stage = {text(stage)} GROUP BY id HAVING count(*) > 1
        ) s RIGHT JOIN failures f ON f.id = s.id
        WHERE f.stage = {text(stage)} AND (s.best IS NULL OR s.best = {_RANK}) AND f.kind <> '{AGAIN}'
    """  # noqa: S608
