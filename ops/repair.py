"""`sayso verify --repair`: make again what can be made again, in an order in which each step finds what it needs.

    settings -> logs -> rows of broken files -> proxies and pictures -> features -> shards -> manifests
    -> what nobody vouches for

What is made again is made by the stage that made it, from its input: bytes that its row knows where nothing changed;
where the source gives others now, the row is replaced and that is said. Nothing is thrown away that only a site or a
person could give back: where that fails, the row stays and verify goes on naming it. The root is held alone meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel

from ops import show
from ops.forget import shard_of
from ops.pipeline import CONFIG_KEY, Pipeline, stages_of
from ops.verify import Broken, Findings, Loose, Verified, Watch, find, manifest_problems, verify
from sayso.arrow import MADE_BY, MADE_FROM, from_arrow
from sayso.datafile import digest_of
from sayso.engine import attempt
from sayso.engine.lease import EVERYTHING, lease
from sayso.engine.outcome import Done, Failed
from sayso.engine.run import new_run_id
from sayso.errors import ConfigError, CorruptObject, SaysoError
from sayso.rewrite import batches, cut_log, rewrite, take_out
from sayso.root import MARK, Root, mark_of_root
from sayso.rows import Failure, Features, Row, Run, Shard
from sayso.sealed import check_lines, sealed_json
from sayso.stage import Stage
from sayso.storage import hash_stream
from sayso.tablecheck import TableReport
from sayso.tablelog import LAST, LOG, read_log
from shards.manifest import publish_manifest
from shards.settings import ShardSettings
from shards.stage import MakeShards

_CHECKPOINT = ".checkpoint.parquet"


class Repaired(BaseModel):
    """What was mended, what was not and why, and what verify says afterwards."""

    mended: list[str]
    not_mended: list[str]
    verified: Verified


@dataclass
class _Work:
    root: Root
    mended: list[str] = field(default_factory=list)
    not_mended: list[str] = field(default_factory=list)

    def note(self, what: str, why_not: str | None) -> None:
        """Note that something is mended, or why it is not."""
        (self.not_mended if why_not else self.mended).append(f"{what}: {why_not}" if why_not else what)


def repair(root: Root, watch: Watch = lambda done, total: None) -> Repaired:
    """Mend what `verify` finds. RootBusy where a run is at work."""
    work = _Work(root)
    with lease(root, f"{new_run_id()}-repair", [EVERYTHING]):
        found = find(root, watch)
        for loose in found.settings:
            work.note(loose.key, _mend_settings(root, loose))
        for report in found.tables:
            _mend_table(work, report)
        _make_objects(work, found.broken)
        _make_lost_shards(work)
        _mend_manifests(work)
        _remove_extra(work, found)
        return Repaired(mended=work.mended, not_mended=work.not_mended, verified=verify(root, watch))


def _mend_settings(root: Root, loose: Loose) -> str | None:
    """Restore an object from its like; why that cannot be done."""
    if loose.key == MARK:
        root.storage.put_bytes(mark_of_root(), MARK)
        return None
    configurations = dict(_configurations(root))
    if loose.key.startswith("shards/"):
        export = loose.key.split("/")[1]
        known = [each.get("shard", {}) for each in map(yaml.safe_load, configurations.values())]
        settings = {_dumped(each) for each in known if each.get("export") == export}
        if len(settings) != 1:
            return f"{len(settings)} configurations of runs know these settings"
        root.storage.put_bytes(sealed_json(json.loads(settings.pop())), loose.key)
        return None
    # The newest run's configuration lies in two places.
    newest = max((f"runs/{run_id}.yaml" for run_id in _runs(root)), default=None)
    source = {CONFIG_KEY: newest, newest: CONFIG_KEY}.get(loose.key)
    if source not in configurations:
        return "there is no other copy of it"
    root.storage.put_bytes(configurations[source], loose.key)
    return None


def _runs(root: Root) -> set[str]:
    """The ids of all runs that anything is left of; they sort by time."""
    listed = {PurePosixPath(key).stem for key in root.storage.list("runs") if key.endswith(".yaml")}
    return listed | {*root.table(Run).read(["run_id"])["run_id"].to_pylist()}


def _dumped(settings: dict[str, Any]) -> str:
    return json.dumps(ShardSettings.model_validate(settings).model_dump(), sort_keys=True)


def _configurations(root: Root) -> Iterator[tuple[str, bytes]]:
    """The configurations that are whole."""
    for key in [CONFIG_KEY, *root.storage.list("runs")]:
        try:
            text = root.storage.read(key)
            check_lines(text, key)
        except (CorruptObject, FileNotFoundError):
            continue
        yield key, text


def _mend_table(work: _Work, report: TableReport) -> None:
    """First the log, which says what files there are."""
    if report.log.problems:
        work.note(f"{report.folder}/{LOG}", _mend_log(work.root, report))
    lost = report.broken.keys()
    if not lost or read_log(work.root.storage, report.folder).problems:
        return
    what = f"{len(lost)} files of table {report.model.table}"
    rows = sum(report.log.state.files[path].rows for path in lost)
    if not _comes_again(work.root, report.model):
        work.note(what, f"their {rows} rows come from outside: restore the files from a copy")
        return
    take_out(work.root, report.model, lost)
    work.note(f"{what} taken out of it: the next `sayso run` makes their {rows} rows again", None)


def _comes_again(root: Root, model: type[Row]) -> bool:
    """Whether a stage makes a table's rows again where they are gone, or nothing depends on them."""
    return model in (Failure, Run, Features, *(stage.writes for stage in stages_of(root, Pipeline())))


def _mend_log(root: Root, report: TableReport) -> str | None:
    """Make a new checkpoint of what readers see, where that is certain; else why not, and nothing is changed.

    A broken checkpoint is not needed where the entries since a whole one, or since the first, are whole. Broken
    entries are not needed where a whole checkpoint came after them.
    """
    broken = {problem.partition(": ")[0] for problem in report.log.problems}
    whole = {_version(key) for key in report.log.keys - broken if key.endswith(_CHECKPOINT)}
    entries = {key for key in broken if not key.endswith((LAST, _CHECKPOINT))}
    since = max(whole, default=0 if report.log.first == 0 else None)
    if since is None or any(not key.endswith(".json") or _version(key) > max(whole, default=-1) for key in entries):
        return "what it said is not known for certain; restore it from a copy"
    for key in {*broken - entries, f"{report.folder}/{LOG}/{LAST}"}:
        root.storage.remove(key)
    cut_log(root, report.model)
    left = read_log(root.storage, report.folder).problems
    return f"{left[0]}; restore it from a copy" if left else None


def _version(key: str) -> int:
    return int(key.rpartition("/")[2].partition(".")[0])


def _make_objects(work: _Work, broken: list[Broken]) -> None:
    """Proxies and pictures, then what is made of them: features, and after those shards."""
    later: list[type[Row]] = [Features, Shard]
    rows = {(type(each.row).table, *_key(each.row)): each.row for each in broken}
    for row in sorted(rows.values(), key=lambda row: later.index(type(row)) + 1 if type(row) in later else 0):
        key = "/".join(_key(row))
        work.note(f"{type(row).table} {key}", _make_again(work, row, key))


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(getattr(row, column)) for column in row.key_columns)


def _make_again(work: _Work, row: Row, key: str) -> str | None:
    """Give a row's input to the stage that made it; why the objects are not there again."""
    try:
        stage = _stage_of(work.root, row)
        given = next(iter(stage.inputs([key])), None)
        if given is None:
            return "what it was made from is not in the tables"
        stage.open()
        outcome = attempt(stage, given)
    except SaysoError as error:
        return str(error)
    if isinstance(outcome, Failed):
        return f"{outcome.reason} ({outcome.message.strip().splitlines()[-1]})"
    if not isinstance(outcome, Done):
        return str(outcome.error)
    [made] = outcome.records
    if type(row).model_validate(made).objects() != row.objects():
        _replace(work.root, row, stage, key, made)
        work.mended.append(f"{type(row).table} {key} has other bytes than before: its row is replaced")
    return None


def _stage_of(root: Root, row: Row) -> Stage[Any, Any]:
    if isinstance(row, Shard):
        return MakeShards(root, ShardSettings(export=row.export))
    # With other settings it would make other bytes.
    if root.storage.exists(CONFIG_KEY):
        check_lines(root.storage.read(CONFIG_KEY), CONFIG_KEY)
    stage = next((stage for stage in stages_of(root) if stage.writes is type(row)), None)
    if stage is None:
        raise ConfigError(
            f"the newest configuration has no stage for it; run `sayso {type(row).table}` with one that has"
        )
    return stage


def _replace(root: Root, row: Row, stage: Stage[Any, Any], key: str, made: dict[str, Any]) -> None:
    def without(batch: pa.RecordBatch) -> pa.RecordBatch:
        same = [pc.equal(batch[column], value) for column, value in zip(row.key_columns, _key(row), strict=True)]
        hit = same[0] if len(same) == 1 else pc.and_(*same)
        return batch.filter(pc.invert(hit)) if pc.any(hit).as_py() else batch

    rewrite(root, type(row), without)
    root.table(type(row)).writer(stage.name).append([{**made, MADE_BY: stage.name, MADE_FROM: key}])


def _make_lost_shards(work: _Work) -> None:
    """Shards whose rows went with a broken file: their tars are there, and their plans."""
    root = work.root
    made = {*root.table(Shard).keys().to_pylist()}
    lost = {name for key in root.storage.list("shards") if (name := shard_of(key)) and name not in made}
    for name in sorted(lost):
        stage = MakeShards(root, ShardSettings(export=name.partition("/")[0]))
        for plan in stage.inputs([name]):
            outcome = attempt(stage, plan)
            if isinstance(outcome, Done):
                records = [{**record, MADE_BY: stage.name, MADE_FROM: name} for record in outcome.records]
                root.table(Shard).writer(stage.name).append(records)
                work.mended.append(f"shards {name}")


def _mend_manifests(work: _Work) -> None:
    """All that are not what the tables say now."""
    exports = {*work.root.table(Shard).read(["export"])["export"].to_pylist()}
    for export in sorted(exports):
        for wrong in manifest_problems(work.root, export):
            try:
                publish_manifest(work.root, export)
                work.note(wrong.key, None)
            except (SaysoError, FileNotFoundError, pa.ArrowException) as error:
                work.note(wrong.key, str(error))


def _remove_extra(work: _Work, found: Findings) -> None:
    """Objects that no row vouches for, once it is certain that all rows are known.

    Where a table's log has lost its last entry its rows look like a killed writer's: what they vouch for stays.
    """
    if not found.tables_are_whole:
        return
    kept = {key for report in found.tables for key in _vouched_by_unnamed(work.root, report)}
    gone = [key for key in found.extra if key.startswith(("media/", "shards/")) and key not in kept]
    for key in gone:
        work.root.storage.remove(key)
        work.mended.append(f"{key}: removed, no row vouches for it")


def _vouched_by_unnamed(root: Root, report: TableReport) -> Iterator[str]:
    if report.model.objects is Row.objects:
        return
    for key in report.extra:
        digest = digest_of(key.rpartition("/")[2])
        if not digest:
            continue
        with root.storage.open(key) as file:
            whole = hash_stream(file) == digest
        for batch in batches(root.storage, key) if whole else ():
            yield from (item.key for row in from_arrow(report.model, batch) for item in row.objects())


def show_repaired(done: Repaired) -> None:
    """Say what was mended and what was not, a line each."""
    for line in done.mended:
        show.out.print(f"mended: {line}", markup=False, highlight=False)
    for line in done.not_mended:
        show.out.print(f"NOT mended: {line}", markup=False, highlight=False)
