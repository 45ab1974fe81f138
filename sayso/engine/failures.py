"""What could not be done: the newest failure of each input, counts of a stage's inputs, and asking again.

Millions of rows may be dropped (a video without captions is): they are counted and matched by Delta Lake's engine,
never turned into objects one by one.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from sayso.arrow import MADE_BY, MADE_FROM, from_arrow
from sayso.root import Root
from sayso.rows import Failure, Row, now
from sayso.sql import Sql, text, texts
from sayso.stage import Stage

# Kinds that are never tried again unless somebody asks for it.
FINISHED = frozenset({"skip", "permanent", "poison"})
# Kinds after which stages that wait for this key wait no longer. A bug is tried again, but not in this run.
_SETTLED = FINISHED | {"bug"}
# Takes back what was said before.
AGAIN = "again"

_COLUMNS = ("id", "kind", "reason", "attempts", "when", "not_before")
# Orders the failures of an id: by microseconds, then by attempts.
_RANK = 'CAST("when" AS BIGINT) * 1000 + LEAST(attempts, 999)'
# Failures that are asked again in one commit.
_BLOCK = 50_000


@dataclass
class Tally:
    """Counts of a stage's inputs."""

    total: int = 0
    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def pending(self) -> int:
        """Inputs that are neither done, dropped nor failed."""
        return self.total - self.done - self.skipped.total() - self.failed.total()

    def count(self, kind: str, reason: str, by: int = 1) -> None:
        """Count inputs whose newest failure is of this kind and class (or, with a negative `by`, take them back)."""
        group = self.skipped if kind == "skip" else self.failed
        group[reason] += by
        if not group[reason]:
            del group[reason]


def newest_failures(root: Root, stage: str, messages: bool = False) -> pa.Table:
    """The newest failure of each input of a stage: id, kind, reason, attempts, when, not_before, and the message if
    asked for. Inputs that somebody asked to be tried again are left out.
    """
    return Sql(root, [Failure]).ask(_newest(stage, [*_COLUMNS, "message"] if messages else _COLUMNS))


def with_messages(root: Root, stage: str, ids: Collection[str]) -> dict[str, Failure]:
    """The newest failures of a few inputs as they were written."""
    if not ids:
        return {}
    query = f"SELECT * FROM ({_newest(stage, list(Failure.model_fields))}) WHERE id IN {texts(ids)}"  # noqa: S608
    return {row.id: row for row in from_arrow(Failure, Sql(root, [Failure]).ask(query))}


def settled(root: Root, stage: str, writes: type[Row]) -> pa.LargeStringArray:
    """The keys, each once, that a stage has done or given up on (a bug counts: it waits for the next run).

    Large strings, as all keys: 100 million have more bytes than offsets of 32 bits reach.
    """
    query = f"""
        SELECT made_from AS key FROM {writes.table} WHERE made_by = {text(stage)}
        UNION SELECT id FROM ({_newest(stage)}) WHERE kind IN {texts(_SETTLED)}
    """  # noqa: S608  # names of our own, and quoted
    return _one_array(Sql(root, {writes, Failure}).ask(query)["key"])


def stage_tally(root: Root, stage: Stage[Any, Any], sql: Sql | None = None) -> Tally:
    """Count a stage's inputs; rows themselves are not read. `sql` has the tables open already."""
    with _inputs(root, stage, sql) as (sql, inputs):
        tally = Tally(
            total=sql.number(f"SELECT count(*) FROM ({inputs})"),  # noqa: S608
            done=sql.number(f"SELECT count(*) FROM ({inputs}) i WHERE {_is_done(stage, 'i.key')}"),  # noqa: S608
        )
        groups = sql.ask(f"SELECT kind, reason, count(*) AS n FROM ({_open(stage, inputs)}) GROUP BY kind, reason")  # noqa: S608
    for group in groups.to_pylist():
        tally.count(group["kind"], group["reason"], by=group["n"])
    return tally


def open_failures(root: Root, stage: Stage[Any, Any]) -> pa.Table:
    """The newest failures, as `newest_failures` gives them, of keys that are inputs still and not done since."""
    with _inputs(root, stage, None) as (sql, inputs):
        return sql.ask(_open(stage, inputs))


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


def _newest(stage: str, columns: Sequence[str] = _COLUMNS) -> str:
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


def _is_done(stage: Stage[Any, Any], key: str) -> str:
    return f"EXISTS (SELECT 1 FROM {stage.writes.table} w WHERE made_by = {text(stage.name)} AND w.made_from = {key})"  # noqa: S608


def _open(stage: Stage[Any, Any], inputs: str) -> str:
    """SQL for the newest failures of keys that are inputs and not done."""
    return f"""
        SELECT * FROM ({_newest(stage.name)}) n
        WHERE EXISTS (SELECT 1 FROM ({inputs}) i WHERE i.key = n.id) AND NOT {_is_done(stage, "n.id")}
    """  # noqa: S608


@contextmanager
def _inputs(root: Root, stage: Stage[Any, Any], sql: Sql | None) -> Iterator[tuple[Sql, str]]:
    """The stage's tables, and SQL for the column `key` of its inputs."""
    sql = sql or Sql(root, {stage.reads, stage.writes, Failure})
    if type(stage).input_keys is Stage.input_keys:
        columns = [f'"{name}"' for name in stage.reads.key_columns]
        key = columns[0] if len(columns) == 1 else f"concat_ws('/', {', '.join(columns)})"
        yield sql, f"SELECT {key} AS key FROM {stage.reads.table}"  # noqa: S608
        return
    # A stage that says itself what its inputs are does so in Arrow; the engine takes tables only.
    with tempfile.TemporaryDirectory(prefix="sayso-keys-") as folder:
        write_deltalake(folder, pa.table({"key": _one_array(stage.input_keys())}))
        name = f"inputs_of_{stage.name}"
        sql.add(name, DeltaTable(folder))
        yield sql, f"SELECT key FROM {name}"  # noqa: S608


def _one_array(keys: Any) -> pa.LargeStringArray:
    """Keys as one array of strings, whether they come in chunks, as an array or one by one."""
    if isinstance(keys, pa.ChunkedArray):
        return keys.cast(pa.large_string()).combine_chunks()
    return keys.cast(pa.large_string()) if isinstance(keys, pa.Array) else pa.array(keys, pa.large_string())
