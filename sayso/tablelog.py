"""A table's Delta log read strictly, as verify needs it: each entry replayed, each checkpoint compared.

The log has no checksums. What readers take from it is the set of live files with their row counts, and the schema;
here both are worked out anew, entry by entry, and whatever could change them is held against something else: a file's
name against its bytes, its size and rows against the file, the schema against the files' own, a checkpoint against the
entries before it, an entry against the form that our writers give it. What may still differ unseen is what no reader
takes its rows from: times, remarks of a commit, ids, retention settings and the counters of writers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sayso.datafile import digest_of
from sayso.errors import CorruptObject
from sayso.storage import Storage

LOG = "_delta_log"
LAST = "_last_checkpoint"
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
_ACTIONS = frozenset({"commitInfo", "protocol", "metaData", "add", "remove", "txn"})
_PROTOCOL = {"minReaderVersion": 1, "minWriterVersion": 2}
_LAST_FIELDS = {"version", "size", "sizeInBytes", "numOfAddFiles"}


class LiveFile(NamedTuple):
    """What the log says of a data file."""

    bytes: int
    rows: int


@dataclass
class State:
    """A table at a version: live files by path, those that were removed, and the schema as the log's text."""

    files: dict[str, LiveFile] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    schema: str | None = None


@dataclass
class TableLog:
    """What a log says. `problems` has a line each; without any, `state` is what readers see."""

    state: State = field(default_factory=State)
    problems: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """The keys of the log's own objects."""
    first: int = 0
    """The version that the entries are complete from."""


def read_log(storage: Storage, table: str) -> TableLog:
    """Replay the log of the table under key `table` ("tables/videos")."""
    folder = f"{table}/{LOG}"
    names = [key.removeprefix(f"{folder}/") for key in storage.list(folder)]
    entries = {int(match[1]) for name in names if (match := _ENTRY.fullmatch(name))}
    checkpoints = {int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name))}
    log = TableLog(keys={f"{folder}/{name}" for name in names if _is_known(name)})
    if not entries | checkpoints:
        log.problems.append(f"{folder}: no entry of the log is left")
        return log
    log.first = 0 if 0 in entries else min(checkpoints, default=0)
    missing = sorted(set(range(log.first, max(entries | checkpoints) + 1)) - entries)
    log.problems += [f"{folder}/{version:020}.json: missing" for version in missing[:10]]
    found = _read_checkpoints(storage, folder, checkpoints, log.problems)
    _replay(storage, folder, sorted(entries), found, log)
    _check_last(storage, folder, names, found, log.problems)
    return log


def _is_known(name: str) -> bool:
    return name == LAST or bool(_ENTRY.fullmatch(name) or _CHECKPOINT.fullmatch(name))


class Checkpoint(NamedTuple):
    """A checkpoint as it was read."""

    state: State
    actions: int


def _read_checkpoints(
    storage: Storage, folder: str, versions: set[int], problems: list[str]
) -> dict[int, Checkpoint | None]:
    """The checkpoints by version, None where one is broken."""
    found: dict[int, Checkpoint | None] = {}
    for version in sorted(versions):
        key = f"{folder}/{version:020}.checkpoint.parquet"
        try:
            found[version] = _checkpoint(pq.read_table(pa.BufferReader(storage.read(key))).to_pylist())
        except (CorruptObject, pa.ArrowException, OSError, ValueError) as error:
            found[version] = None
            problems.append(f"{key}: {_plain(error)}")
    return found


def _checkpoint(rows: list[dict[str, Any]]) -> Checkpoint:
    state = State()
    protocols = 0
    for row in rows:
        given = {name: value for name, value in row.items() if value is not None}
        if len(given) != 1 or not given.keys() <= _ACTIONS - {"commitInfo"}:
            raise CorruptObject("a row that is not one action")
        name, action = next(iter(given.items()))
        protocols += name == "protocol"
        _apply(state, name, action, in_checkpoint=True)
    if state.schema is None or protocols != 1:
        raise CorruptObject("no schema or no protocol in it")
    return Checkpoint(state, len(rows))


def _replay(
    storage: Storage, folder: str, entries: list[int], checkpoints: Mapping[int, Checkpoint | None], log: TableLog
) -> None:
    begin = checkpoints.get(log.first) if log.first else Checkpoint(State(), 0)
    whole = begin is not None and not log.problems
    state = deepcopy(begin.state) if begin else State()
    for version in entries:
        key = f"{folder}/{version:020}.json"
        try:
            actions = list(_actions(storage.read(key)))
            if whole and (version > log.first or not log.first):
                _commit(state, actions)
        except (CorruptObject, ValueError, FileNotFoundError) as error:
            log.problems.append(f"{key}: {_plain(error)}")
            whole = False
        seen = checkpoints.get(version)
        if whole and seen and (seen.state.files, seen.state.schema) != (state.files, state.schema):
            log.problems.append(f"{folder}/{version:020}.checkpoint.parquet: not what the entries before it come to")
    log.state = state


def _actions(text: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The actions of an entry, as our writers give them: remarks first, and the number of a counter last."""
    names = []
    for line in text.decode().splitlines():
        entry = json.loads(line, object_pairs_hook=_once)
        if not isinstance(entry, dict) or len(entry) != 1 or not entry.keys() <= _ACTIONS:
            raise CorruptObject("a line that is not one action")
        name, action = next(iter(entry.items()))
        if not isinstance(action, dict):
            raise CorruptObject(f"{name} is not an object")
        names.append(name)
        yield name, action
    if not names or names[0] != "commitInfo":
        raise CorruptObject("does not begin with commitInfo")
    if "remove" in names and names[-1] != "txn":
        raise CorruptObject("is cut off: files are removed under no counter")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CorruptObject("a key stands twice")
    return found


def _commit(state: State, actions: list[tuple[str, dict[str, Any]]]) -> None:
    for name, action in actions:
        _apply(state, name, action, in_checkpoint=False)


def _apply(state: State, name: str, action: Mapping[str, Any], *, in_checkpoint: bool) -> None:
    if name == "add":
        _add(state, action)
    elif name == "remove":
        path = _needed(action, "path", str)
        if not in_checkpoint and state.files.pop(path, None) is None:
            raise CorruptObject(f"removes {path}, which is not there")
        state.removed.add(path)
    elif name == "metaData":
        state.schema = _needed(action, "schemaString", str)
        if not isinstance(json.loads(state.schema), dict) or _needed(action, "partitionColumns", list):
            raise CorruptObject("is of another kind of table")
    elif name == "protocol":
        given = {key: value for key, value in action.items() if value is not None}
        if given != _PROTOCOL:
            raise CorruptObject("asks for another protocol than our tables have")


def _add(state: State, action: Mapping[str, Any]) -> None:
    path, size = _needed(action, "path", str), _needed(action, "size", int)
    if digest_of(path) is None:
        raise CorruptObject(f"{path}: its name carries no checksum, this sayso did not write it")
    if path in state.files:
        raise CorruptObject(f"{path} is added twice")
    if action.get("partitionValues") not in ({}, []) or action.get("deletionVector") is not None:
        raise CorruptObject(f"{path} is of another kind of table")
    told = json.loads(_needed(action, "stats", str), object_pairs_hook=_once)
    if not isinstance(told, dict) or told.keys() != {"numRecords"}:
        raise CorruptObject(f"{path}: the statistics are not those of our writers")
    state.files[path] = LiveFile(size, _needed(told, "numRecords", int))
    state.removed.discard(path)


def _needed(action: Mapping[str, Any], name: str, kind: type) -> Any:
    value = action.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CorruptObject(f"{name} is missing or of another kind")
    return value


def _check_last(
    storage: Storage, folder: str, names: list[str], checkpoints: Mapping[int, Checkpoint | None], problems: list[str]
) -> None:
    """The hint at the newest checkpoint. One that is older than the newest was left by a process that was killed."""
    key = f"{folder}/{LAST}"
    if LAST not in names:
        if checkpoints:
            problems.append(f"{key}: missing")
        return
    try:
        hint = json.loads(storage.read(key), object_pairs_hook=_once)
    except (ValueError, CorruptObject):
        problems.append(f"{key}: not JSON")
        return
    if not isinstance(hint, dict) or not {"version", "size"} <= hint.keys() <= _LAST_FIELDS:
        problems.append(f"{key}: not a hint at a checkpoint")
        return
    found = checkpoints.get(hint["version"])
    if hint["version"] not in checkpoints:
        problems.append(f"{key}: names a checkpoint that is not there")
    elif found and (hint["size"], hint.get("numOfAddFiles")) != (found.actions, len(found.state.files)):
        problems.append(f"{key}: not what the checkpoint has")


def _plain(error: Exception) -> str:
    if isinstance(error, CorruptObject):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "missing"
    return "not JSON" if isinstance(error, ValueError) and not isinstance(error, pa.ArrowException) else "not Parquet"
