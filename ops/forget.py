"""`sayso forget`: take videos and documents out of a root, all of them and for good, and prove it.

    remember -> configurations -> objects -> rows -> plans -> shards -> manifests -> history of the tables -> scan

The ids are remembered first, in table `forgotten`: from then on nothing finds, fetches or plans them, whatever happens
next. Every step after that looks at what is there and not at what was done before, so the same command goes on where
one was killed. The root is held alone meanwhile, which is what makes it safe to remove what older readers may want.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel

from ops import show
from ops.pipeline import CONFIG_KEY
from ops.scan import Names, Scanned, scan, texts_of
from ops.verify import manifest_keys
from sayso.arrow import MADE_BY, MADE_FROM
from sayso.engine.lease import EVERYTHING, lease
from sayso.engine.run import new_run_id
from sayso.errors import CorruptObject, InputError, RowError
from sayso.rewrite import Change, batches, purge, rewrite
from sayso.root import Root
from sayso.rows import TABLES, Forgotten, Media, Plan, Row, Shard, Video
from sayso.sealed import check_lines, sealed_lines
from sayso.storage import PARTIAL
from sayso.tablecheck import folder_of
from shards.manifest import manifest_objects
from shards.settings import ShardSettings
from shards.stage import MakeShards

NAME = "forget"
_SHARD_ENDINGS = (".tar", ".index.parquet")


class Forgot(BaseModel):
    """What was removed, and what was looked through afterwards."""

    ids: list[str]
    rows: dict[str, int] = {}
    samples: int = 0
    objects: int = 0
    shards_made: list[str] = []
    shards_gone: list[str] = []
    not_made: list[str] = []
    copies: list[str] = []
    scanned: Scanned | None = None

    @property
    def proven(self) -> bool:
        """Whether the ids are nowhere any more, and all shards are there that should be."""
        return self.scanned is not None and not self.scanned.found and not self.not_made


@dataclass
class _Work:
    """What the steps share."""

    root: Root
    names: Names
    report: Forgot
    urls: set[str] = field(default_factory=set)


def forget(root: Root, ids: Sequence[str], reason: str = "", *, dry_run: bool = False) -> Forgot:
    """Forget these ids; without any, finish what was begun: all that is in table forgotten.

    RootBusy where a run is at work, InputError where there is nothing to do. With `dry_run` nothing is changed.
    """
    ids = sorted({*ids} or {*root.table(Forgotten).keys().to_pylist()})
    if not ids:
        raise InputError("nothing to forget: give ids (`video_id`, as in table videos)")
    work = _Work(root, Names(ids), Forgot(ids=ids))
    work.urls = {row.url for row in root.table(Video).rows(video_id=ids)}
    if dry_run:
        return _foretell(work)
    with lease(root, f"{new_run_id()}-{NAME}", [EVERYTHING]):
        _remember(root, ids, reason)
        for step in STEPS:
            step(work)
        work.report.copies = _copies(root, ids)
        work.report.scanned = scan(root.storage, work.names, leave_out=f"{folder_of(Forgotten)}/")
    return work.report


def _remember(root: Root, ids: Sequence[str], reason: str) -> None:
    known = {*root.table(Forgotten).keys().to_pylist()}
    digests = {media.video_id: media.source.sha256 for media in root.table(Media).rows(video_id=ids)}
    rows = [Forgotten(id=each, source_sha256=digests.get(each), reason=reason) for each in ids if each not in known]
    records = [{**row.model_dump(), MADE_BY: NAME, MADE_FROM: row.id} for row in rows]
    root.table(Forgotten).writer(NAME).append(records)


def _copies(root: Root, ids: Sequence[str]) -> list[str]:
    """Videos that have the bytes of a forgotten one under another id: they stay, and are not planned."""
    digests = {row.source_sha256 for row in root.table(Forgotten).rows(id=ids)} - {None}
    found: list[str] = []
    for piece in root.table(Media).stream(["video_id", "source"]) if digests else ():
        same = pc.is_in(pc.struct_field(piece["source"], "sha256"), pa.array(sorted(map(str, digests)), pa.string()))
        found += piece["video_id"].filter(same).to_pylist()
    return sorted(found)


def _clean_configurations(work: _Work) -> None:
    """Where a person named the video itself to a run."""
    storage = work.root.storage
    for key in [CONFIG_KEY, *storage.list("runs")]:
        if not storage.exists(key):
            continue
        text = storage.read(key)
        try:
            check_lines(text, key)
        except CorruptObject:  # left to verify; if an id is in it, the scan will say so
            continue
        settings = yaml.safe_load(text)
        cleaned = _without(settings, lambda text: text in work.urls or bool(work.names.in_text(text)))
        if cleaned != settings:
            storage.put_bytes(sealed_lines(yaml.safe_dump(cleaned, sort_keys=False).encode()), key)


def _without(settings: Any, unwanted: Callable[[str], bool]) -> Any:
    """Settings without the items of lists that are unwanted."""
    if isinstance(settings, dict):
        return {name: _without(value, unwanted) for name, value in settings.items()}
    if isinstance(settings, list):
        return [_without(item, unwanted) for item in settings if not (isinstance(item, str) and unwanted(item))]
    return settings


def _remove_objects(work: _Work) -> None:
    """Objects before their rows, which are what names them; half-written ones too, whosever they are."""
    storage = work.root.storage
    keys = {key for each in work.names.ids for key in storage.list(f"media/{each}", partial=True)}
    keys |= {key for prefix in ("media", "shards") for key in storage.list(prefix, partial=True) if PARTIAL in key}
    for model in TABLES:
        if model.objects is not Row.objects and model is not Shard:
            asked: dict[str, Any] = {model.key_columns[0]: work.names.ids}
            keys |= {item.key for row in work.root.table(model).rows(None, **asked) for item in row.objects()}
    for key in sorted(keys):
        storage.remove(key)
        work.report.objects += 1


def _rewrite_tables(work: _Work) -> None:
    """Rows that name an id go; shards that hold a sample of it lose their row, and are made again below."""
    for model in TABLES:
        if model not in (Plan, Forgotten):
            gone = rewrite(work.root, model, _without_rows(work.names))
            work.report.rows[model.table] = gone


def _without_rows(names: Names) -> Change:
    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        hit = naming(batch, names)
        return batch.filter(pc.invert(hit)) if pc.any(hit).as_py() else batch

    return change


def naming(batch: pa.RecordBatch, names: Names) -> pa.BooleanArray:
    """Which rows are about an id: it stands in a column of ids, or in what a failure says."""
    columns = [column for name, column in zip(batch.schema.names, batch.columns, strict=True) if _says_who(name)]
    if not any(names.in_array(texts) for column in columns for texts in texts_of(column)):
        return pa.array([False] * batch.num_rows, pa.bool_())
    rows = (
        any(names.in_array(texts) for column in columns for texts in texts_of(column.slice(row, 1)))
        for row in range(batch.num_rows)
    )
    return pa.array(list(rows), pa.bool_())


def _says_who(column: str) -> bool:
    return column in ("id", "message", MADE_FROM) or column.endswith(("_id", "_ids"))


def _rewrite_plans(work: _Work) -> None:
    """Plans without the samples; a plan that loses all goes."""

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        videos = pc.struct_field(pc.list_flatten(batch["samples"]), "video_id")
        gone = pc.sum(pc.is_in(videos, pa.array(sorted(work.names.ids), pa.string()))).as_py()
        if not gone:
            return batch
        return pa.RecordBatch.from_pylist(list(_planned_still(batch, work.names)), schema=batch.schema)

    before = _samples(work.root)
    work.report.rows[Plan.table] = rewrite(work.root, Plan, change)
    work.report.samples = before - _samples(work.root)


def _planned_still(batch: pa.RecordBatch, names: Names) -> Iterator[dict[str, Any]]:
    for row in batch.to_pylist():
        samples = [sample for sample in row["samples"] if sample["video_id"] not in names.ids]
        if samples or not row["samples"]:
            yield {**row, "samples": samples}


def _samples(root: Root) -> int:
    return sum(len(pc.list_flatten(piece["samples"])) for piece in root.table(Plan).stream(["samples"]))


def _make_shards_again(work: _Work) -> None:
    """Tars that no row vouches for: those of a plan are made anew in their place, others go."""
    storage = work.root.storage
    made, planned = ({*work.root.table(model).keys().to_pylist()} for model in (Shard, Plan))
    found = {key: name for key in storage.list("shards") if (name := shard_of(key)) and name not in made}
    for name in sorted(set(found.values())):
        if name in planned and _made_again(work, name):
            continue
        for key in (key for key, of in found.items() if of == name):
            storage.remove(key)
        if name not in planned:
            work.report.shards_gone.append(name)


def shard_of(key: str) -> str | None:
    """The shard ("export/name") that a tar or an index belongs to."""
    path = PurePosixPath(key)
    ending = next((ending for ending in _SHARD_ENDINGS if path.name.endswith(ending)), None)
    return f"{path.parts[1]}/{path.name.removesuffix(ending)}" if ending and len(path.parts) == 3 else None


def _made_again(work: _Work, name: str) -> bool:
    stage = MakeShards(work.root, ShardSettings(export=name.partition("/")[0]))
    stage.open()
    try:
        rows = [row for plan in stage.inputs([name]) for row in stage(plan)]
    except (RowError, CorruptObject) as error:
        work.report.not_made.append(f"{name}: {error}")
        return False
    records = [{**row.model_dump(), MADE_BY: stage.name, MADE_FROM: name} for row in rows]
    work.root.table(Shard).writer(stage.name).append(records)
    work.report.shards_made.append(name)
    return True


def _publish_manifests(work: _Work) -> None:
    """Manifests of the shards that there are; none of an export that has lost all."""
    storage = work.root.storage
    exports = {key.split("/")[1] for key in storage.list("shards")}
    made = {*work.root.table(Shard).read(["export"])["export"].to_pylist()}
    for export in sorted(exports):
        objects = manifest_objects(work.root, export) if export in made else {}
        for key, data in objects.items():
            if not storage.exists(key) or storage.read(key) != data:
                storage.put_bytes(data, key)
        for key in set(manifest_keys(work.root, export)) - objects.keys():
            storage.remove(key)


def _purge_tables(work: _Work) -> None:
    """Older versions of the tables have the rows still: in files out of use, in the log and its checkpoints."""
    for model in TABLES:
        if model is not Forgotten:
            purge(work.root, model)


STEPS: tuple[Callable[[_Work], None], ...] = (
    _clean_configurations,
    _remove_objects,
    _rewrite_tables,
    _rewrite_plans,
    _make_shards_again,
    _publish_manifests,
    _purge_tables,
)
"""What is done, in this order; each step goes on where a killed one stopped. A search index has its step here."""


def _foretell(work: _Work) -> Forgot:
    """What would be removed."""
    report = work.report
    for model in TABLES:
        if model in (Plan, Forgotten):
            continue
        table = work.root.table(model).opened()
        paths = pa.table(table.get_add_actions())["path"].to_pylist() if table else []
        rows = (naming(batch, work.names) for path in paths for batch in _of_file(work.root, model, path))
        report.rows[model.table] = sum(pc.sum(hit).as_py() or 0 for hit in rows)
    for plan in work.root.table(Plan).rows():
        gone = sum(sample.video_id in work.names.ids for sample in plan.samples)
        report.samples += gone
        if gone:
            places = report.shards_gone if gone == len(plan.samples) else report.shards_made
            places.append(f"{plan.export}/{plan.shard}")
    report.objects = sum(len(work.root.storage.list(f"media/{each}")) for each in work.names.ids)
    return report


def _of_file(root: Root, model: type[Row], path: str) -> Iterator[pa.RecordBatch]:
    return batches(root.storage, f"{folder_of(model)}/{path}")


def show_forgot(done: Forgot, *, dry_run: bool) -> None:
    """Say what was (or would be) removed, and what the proof is."""
    say = partial(show.out.print, markup=False, highlight=False)
    rows = ", ".join(f"{count} of {table}" for table, count in done.rows.items() if count) or "none"
    say(f"rows: {rows}; {done.samples} samples; {done.objects} objects")
    if not any([*done.rows.values(), done.samples, done.objects]):
        say(f"there was nothing of {', '.join(done.ids)}; ids are those of table videos, as `<site>:<id>`")
    say(f"shards: {len(done.shards_made)} made again, {len(done.shards_gone)} gone")
    for line in done.not_made:
        say(f"shard not made again: {line}")
    for each in done.copies:
        say(f"{each} has the same bytes: it is planned no more; `sayso forget {each}` removes it too")
    if dry_run or done.scanned is None:
        say("nothing was changed")
        return
    seen = done.scanned
    for line in seen.found:
        say(line)
    word = "still there" if seen.found else "nowhere but in table forgotten"
    say(
        f"looked through {seen.objects} objects, {seen.bytes} bytes beside media, {seen.rows} rows, "
        f"{seen.tar_members} members of tars: {word}"
    )
