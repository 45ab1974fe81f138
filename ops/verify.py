"""Re-read a root, all of it: tables, the objects that rows vouch for, manifests and settings. Name what is not whole.

    tables/       each log replayed, each data file hashed          (sayso/tablelog.py, sayso/tablecheck.py)
    media/ shards/  each object hashed, as its row says; manifests compared with the tables; what no row vouches for
    export.json, pipeline.yaml, runs/*.yaml   carry their own checksum   (sayso/sealed.py)

The keys of all objects are held in memory, their rows are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeVar

import pyarrow as pa
from pydantic import BaseModel

from ops import show
from ops.pipeline import CONFIG_KEY
from sayso.errors import CorruptObject, SaysoError
from sayso.root import MARK, Root, mark_of_root
from sayso.rows import TABLES, Plan, Row, Run, Shard, StoredObject
from sayso.sealed import check_lines, opened_json
from sayso.tablecheck import TableReport, check_table, folder_of, sound_rows
from shards.manifest import manifest_objects
from shards.plan import profile_key

T = TypeVar("T")
Watch = Callable[[int, int], None]

# Hashing waits for storage more than for the processor.
_READERS = 4
_AT_ONCE = 1024


class Verified(BaseModel):
    """What was read, and what is wrong. `extra` are objects that no row vouches for: left by a killed run,
    they are written again under the same key when it goes on.
    """

    root: str
    tables: int
    rows: int
    objects: int
    bytes: int
    problems: list[str]
    extra: list[str]


class Broken(NamedTuple):
    """An object that is not what its row says."""

    row: Row
    item: StoredObject
    why: str


class Loose(NamedTuple):
    """An object without a row of its own (a manifest, settings) that is not what it should be."""

    key: str
    why: str


@dataclass
class Findings:
    """What was found, as repair needs it."""

    tables: list[TableReport] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    manifests: dict[str, list[Loose]] = field(default_factory=dict)
    """By export."""
    settings: list[Loose] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0

    @property
    def problems(self) -> list[str]:
        """All that is wrong, a line each."""
        loose = [*(each for found in self.manifests.values() for each in found), *self.settings]
        return sorted(
            [
                *(line for report in self.tables for line in report.lines),
                *(each.why for each in self.broken),
                *(f"{each.key}: {each.why}" for each in loose),
            ]
        )

    @property
    def tables_are_whole(self) -> bool:
        """Whether all rows could be read as they were written."""
        return not any(report.lines for report in self.tables)


def verify(root: Root, watch: Watch = lambda done, total: None) -> Verified:
    """Check every table and object of a root; `watch` is told objects done and found so far."""
    found = find(root, watch)
    return Verified(
        root=root.url,
        tables=sum(report.exists for report in found.tables),
        rows=sum(report.rows for report in found.tables),
        objects=found.objects,
        bytes=found.bytes + sum(report.bytes for report in found.tables),
        problems=found.problems,
        extra=found.extra,
    )


def find(root: Root, watch: Watch = lambda done, total: None) -> Findings:
    """What `verify` says, as objects."""
    found = Findings(tables=[check_table(root, model) for model in TABLES])
    keys = _check_objects(root, found, watch)
    _check_exports(root, found, keys)
    _check_settings(root, found, keys)
    known = {folder_of(model) for model in TABLES}
    for prefix in ("media", "shards", "tables", "runs"):
        listed = root.storage.list(prefix)
        found.extra += [key for key in listed if key not in keys and "/".join(key.split("/")[:2]) not in known]
    found.extra = sorted([*found.extra, *(key for report in found.tables for key in report.extra)])
    return found


def _check_objects(root: Root, found: Findings, watch: Watch) -> set[str]:
    """Check what rows vouch for; the keys of all of it."""
    keys: set[str] = set()
    vouched = (
        (row, item)
        for report in found.tables
        if report.model.objects is not Row.objects
        for row in sound_rows(root, report)
        for item in row.objects()
    )
    with ThreadPoolExecutor(_READERS) as readers:
        for some in _pieces(vouched):
            keys.update(item.key for _, item in some)
            found.bytes += sum(item.bytes for _, item in some)
            for (row, item), why in zip(some, readers.map(lambda each: _problem(root, each[1]), some), strict=True):
                found.objects += 1
                watch(found.objects, len(keys))
                if why:
                    found.broken.append(Broken(row, item, why))
    return keys


def _pieces(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while piece := list(islice(source, _AT_ONCE)):
        yield piece


def _problem(root: Root, item: StoredObject) -> str | None:
    try:
        root.storage.check(item)
    except CorruptObject as error:
        return str(error)
    return None


def _check_exports(root: Root, found: Findings, keys: set[str]) -> None:
    """Manifests against their shards, and the settings of every export that anything is planned of."""
    reports = {report.model: report for report in found.tables}
    planned, made = (_values(root, reports[model], "export") for model in (Plan, Shard))
    for export in sorted(made):
        found.manifests[export] = list(manifest_problems(root, export))
        keys.update(manifest_keys(root, export))
    settings = {profile_key(export) for export in planned}
    settings.update(key for key in root.storage.list("shards") if key.endswith("/export.json"))
    for key in sorted(settings):
        keys.add(key)
        if why := _sealed(root, key, opened_json):
            found.settings.append(Loose(key, why))


def _values(root: Root, report: TableReport, column: str) -> set[str]:
    """The values of a text column in the data files that are whole."""
    if report.lines or not report.exists:
        return {getattr(row, column) for row in sound_rows(root, report)}
    return set(root.table(report.model).read([column])[column].to_pylist())


def manifest_problems(root: Root, export: str) -> Iterator[Loose]:
    """Where an export's manifest is not what its shards come to."""
    try:
        expected = manifest_objects(root, export)
    except (SaysoError, FileNotFoundError, pa.ArrowException) as error:
        yield Loose(f"shards/{export}/manifest", f"cannot be compared with its shards ({error})")
        return
    for key, data in expected.items():
        try:
            if root.storage.read(key) != data:
                yield Loose(key, "not what the tables say")
        except FileNotFoundError:
            yield Loose(key, "missing")


def manifest_keys(root: Root, export: str) -> list[str]:
    """The objects of an export's manifest that are there."""
    prefix = f"shards/{export}/manifest."
    return [key for key in root.storage.list(f"shards/{export}") if key.startswith(prefix)]


def _check_settings(root: Root, found: Findings, keys: set[str]) -> None:
    """The root's mark, the configuration of the newest run, and those of all runs."""
    if not root.storage.exists(MARK) or root.storage.read(MARK) != mark_of_root():
        found.settings.append(Loose(MARK, "not what this sayso writes"))
    configs = [key for key in root.storage.list("runs") if key.endswith(".yaml")]
    has_newest = root.storage.exists(CONFIG_KEY)
    if configs or has_newest:
        report = next(report for report in found.tables if report.model is Run)
        configs += [f"runs/{run_id}.yaml" for run_id in _values(root, report, "run_id")]
        configs.append(CONFIG_KEY)
    for key in sorted(set(configs)):
        keys.add(key)
        if why := _sealed(root, key, check_lines):
            found.settings.append(Loose(key, why))


def _sealed(root: Root, key: str, check: Callable[[bytes, str], object]) -> str | None:
    """What is wrong with an object that carries its own checksum."""
    try:
        check(root.storage.read(key), key)
    except CorruptObject as error:
        return str(error).removeprefix(f"{key}: ")
    except FileNotFoundError:
        return "missing"
    return None


def show_verified(found: Verified) -> None:
    """Say what is wrong, a line each, and how much was read."""
    for problem in found.problems:
        show.out.print(problem, markup=False)
    word = f"{len(found.problems)} broken" if found.problems else "all whole"
    show.out.print(f"{found.tables} tables, {found.rows} rows, {found.objects} objects: {word}")
    if found.extra:
        show.out.print(f"{len(found.extra)} objects belong to no row (an unfinished run leaves such)")
