"""The inputs of a stage: how many are done, dropped and failed, and which are ready to be worked on.

Inputs, results and failures are matched by Delta Lake's engine; only the keys that are ready come into this process.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from sayso.engine.failures import FINISHED, SETTLED, newest
from sayso.root import Root
from sayso.rows import Failure, Row
from sayso.sql import Sql, text, texts
from sayso.stage import Stage


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


def stage_tally(root: Root, stage: Stage[Any, Any], sql: Sql | None = None) -> Tally:
    """Count a stage's inputs; rows themselves are not read. `sql` has the tables open already."""
    with _inputs(root, stage, sql) as (sql, inputs):
        tally = Tally(
            total=sql.number(f"SELECT count(*) FROM ({inputs})"),  # noqa: S608
            done=sql.number(f"SELECT count(*) FROM ({inputs}) i WHERE {_is_done(stage.writes, stage.name, 'i.key')}"),  # noqa: S608
        )
        groups = sql.ask(f"SELECT kind, reason, count(*) AS n FROM ({_open(stage, inputs)}) GROUP BY kind, reason")  # noqa: S608
    for group in groups.to_pylist():
        tally.count(group["kind"], group["reason"], by=group["n"])
    return tally


@dataclass(frozen=True)
class Look:
    """A stage's inputs at one moment: all, those that wait for the stages before, and the keys that are ready."""

    total: int
    gated: int
    ready: list[str]


def look(root: Root, stage: Stage[Any, Any]) -> Look:
    """Find the inputs that are neither done nor given up on, and which of them the stages before have settled."""
    with _inputs(root, stage, None) as (sql, inputs):
        total = sql.number(f"SELECT count(*) FROM ({inputs})")  # noqa: S608
        done = _is_done(stage.writes, stage.name, "i.key")
        given_up = _has_failed(stage.name, FINISHED, "i.key")
        left = f"SELECT key FROM ({inputs}) i WHERE NOT {done} AND NOT {given_up}"  # noqa: S608
        gates = [_is_settled(name, writes) for name, writes in stage.after.items()]
        ready = f"SELECT key FROM ({left}) i WHERE {' AND '.join(gates)}" if gates else left  # noqa: S608
        keys = sql.ask(ready)["key"].to_pylist()
        waiting = sql.number(f"SELECT count(*) FROM ({left})") if gates else len(keys)  # noqa: S608
    return Look(total, waiting - len(keys), keys)


def _is_settled(stage: str, writes: type[Row]) -> str:
    """SQL that holds where a stage has done the key `i.key`, or given up on it for this run."""
    return f"({_is_done(writes, stage, 'i.key')} OR {_has_failed(stage, SETTLED, 'i.key')})"


def _has_failed(stage: str, kinds: Collection[str], key: str) -> str:
    """SQL that holds where the newest failure of a key is of one of these kinds."""
    return f"EXISTS (SELECT 1 FROM ({newest(stage)}) n WHERE n.kind IN {texts(kinds)} AND n.id = {key})"  # noqa: S608


def open_failures(root: Root, stage: Stage[Any, Any]) -> pa.Table:
    """The newest failures, as `newest_failures` gives them, of keys that are inputs still and not done since."""
    with _inputs(root, stage, None) as (sql, inputs):
        return sql.ask(_open(stage, inputs))


def _is_done(writes: type[Row], stage: str, key: str) -> str:
    return f"EXISTS (SELECT 1 FROM {writes.table} w WHERE made_by = {text(stage)} AND w.made_from = {key})"  # noqa: S608


def _open(stage: Stage[Any, Any], inputs: str) -> str:
    """SQL for the newest failures of keys that are inputs and not done."""
    done = _is_done(stage.writes, stage.name, "n.id")
    return f"""
        SELECT * FROM ({newest(stage.name)}) n
        WHERE EXISTS (SELECT 1 FROM ({inputs}) i WHERE i.key = n.id) AND NOT {done}
    """  # noqa: S608


@contextmanager
def _inputs(root: Root, stage: Stage[Any, Any], sql: Sql | None) -> Iterator[tuple[Sql, str]]:
    """The stage's tables, and SQL for the column `key` of its inputs."""
    sql = sql or Sql(root, {stage.reads, stage.writes, *stage.after.values(), Failure})
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
