"""Mending a root: what can be made again is made again, and of what cannot it is said."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from ingest.discover import discover, record
from ingest.fetch import Fetch, FetchSettings
from ops.pipeline import Pipeline, keep_configuration
from ops.repair import Repaired, repair
from ops.verify import verify
from sayso.compaction import compact
from sayso.engine.inputs import stage_tally
from sayso.engine.lease import lease
from sayso.errors import RootBusy
from sayso.root import Root
from sayso.rows import Media, Narration, Run, Shard, Transcript, Video
from sayso.tablecheck import check_table
from shards.settings import ShardSettings
from shards.stage import MakeShards
from tests.conftest import REPOSITORY
from tests.contents import content_hash
from tests.crashes import work
from tests.made import put
from tests.shards.conftest import Lab

SETTINGS = ShardSettings(samples_per_shard=2, val=0.0, test=0.0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for number, name in enumerate("abc"):
        Lab.make_proxy(folder / f"{name}.mp4", 4 + number)
    return folder


@pytest.fixture(scope="module")
def made(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root whose proxies were fetched from a folder, with shards; one table has a checkpoint."""
    root = Root(str(tmp_path_factory.mktemp("made") / "root")).create()
    record(root, discover([str(sources)]))
    stage = Fetch(root, FetchSettings())
    stage.open()
    for video in root.table(Video).rows():
        put(root, list(stage(video)), stage.name)
    for each in sorted(root.table(Video).keys().to_pylist()):
        put(root, [Lab.narration(each, time + 0.25, time + 1.5) for time in (0, 2)], "align", made_from=each)
    compact(DeltaTable(root.table(Narration).url), 1 << 20)
    work(MakeShards(root, SETTINGS))
    put(root, [figures("20260101T000000-aaaaaa")], "shard")
    keep_configuration(root, Pipeline(shard=SETTINGS), "20260101T000000-aaaaaa")
    return root


@pytest.fixture
def copy(made: Root, tmp_path: Path) -> Root:
    return Root(shutil.copytree(made.url, tmp_path / "copy").as_posix())


def figures(run_id: str) -> Run:
    return Run(
        run_id=run_id, stage="shard", elapsed=1, total=3, done=3, failed=0, in_flight=0, rows_per_second=1,
        video_seconds=1, video_seconds_per_second=1, bytes_per_second=1,
    )  # fmt: skip


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def first(root: Root, pattern: str) -> Path:
    return sorted(Path(root.url).glob(pattern))[0]


MENDABLE = {
    "a proxy": "media/*/proxy.mp4",
    "a tar": "shards/clips/train-000001.tar",
    "an index": "shards/clips/train-000000.index.parquet",
    "a manifest": "shards/clips/manifest.*",
    "settings": "shards/clips/export.json",
    "the newest configuration": "pipeline.yaml",
    "the same, of its run": "runs/*.yaml",
    "rows of shards": "tables/shards/*.parquet",
    "a checkpoint": "tables/narrations/_delta_log/*.checkpoint.parquet",
    "the hint at it": "tables/narrations/_delta_log/_last_checkpoint",
    "an entry before it": "tables/narrations/_delta_log/00000000000000000002.json",
    "the mark": "sayso.json",
}


@pytest.mark.parametrize("what", MENDABLE)
@pytest.mark.parametrize("how", [flip, Path.unlink], ids=["flipped", "missing"])
def test_what_can_be_made_again_is(what: str, how: Callable[[Path], None], copy: Root) -> None:
    before, objects = content_hash(copy), verify(copy)
    how(first(copy, MENDABLE[what]))
    assert verify(copy).problems
    done = repair(copy)
    assert done.mended
    assert done.not_mended == []
    assert (done.verified.problems, done.verified.extra) == ([], objects.extra)
    assert content_hash(copy) == before


def test_shards_are_cut_from_proxies_that_were_mended_first(copy: Root) -> None:
    before = content_hash(copy)
    for key in [*copy.storage.list("media"), *copy.storage.list("shards")]:
        copy.storage.remove(key)
    done = repair(copy)
    assert done.not_mended == []
    assert done.verified.problems == []
    assert content_hash(copy) == before


def test_rows_of_a_stage_are_made_again_by_the_next_run(copy: Root) -> None:
    fetch = Fetch(copy, FetchSettings())
    assert stage_tally(copy, fetch).pending == 0
    flip(first(copy, "tables/media/*.parquet"))
    done = repair(copy)
    assert done.verified.problems == []
    assert any("the next `sayso run` makes their 1 rows again" in line for line in done.mended)
    assert stage_tally(copy, fetch).pending == 1


@pytest.mark.parametrize("table", ["videos", "plans"])
def test_rows_from_outside_are_not_thrown_away(copy: Root, table: str) -> None:
    path = first(copy, f"tables/{table}/*.parquet")
    flip(path)
    left = path.read_bytes()
    done = repair(copy)
    assert "restore the files from a copy" in "".join(done.not_mended)
    assert done.verified.problems
    assert path.read_bytes() == left


def test_a_log_that_is_not_certain_is_left_alone(copy: Root) -> None:
    """An entry whose `add` reads otherwise is skipped by readers: a checkpoint of that would lose its rows."""
    path = first(copy, "tables/media/_delta_log/00000000000000000002.json")
    path.write_bytes(path.read_bytes().replace(b'{"add":', b'{"aed":'))
    entries = sorted(path.parent.iterdir())
    done = repair(copy)
    assert "restore it from a copy" in "".join(done.not_mended)
    assert done.verified.problems
    assert sorted(path.parent.iterdir()) == entries
    assert len(copy.storage.list("media")) == 3


def test_a_source_that_is_gone_is_told(copy: Root, sources: Path, tmp_path: Path) -> None:
    rows = copy.table(Media).read().num_rows
    path = first(copy, "media/*/proxy.mp4")
    flip(path)
    away = sources.rename(tmp_path / "away")
    try:
        done = repair(copy)
    finally:
        away.rename(sources)
    assert [line.partition(": ")[0] for line in done.not_mended] == [f"media {path.parent.name}"]
    assert len(done.verified.problems) == 1
    assert copy.table(Media).read().num_rows == rows
    assert repair(copy).verified.problems == []


def test_where_a_fetch_gives_other_bytes_the_row_is_replaced(copy: Root) -> None:
    path = first(copy, "media/*/proxy.mp4")
    flip(path)
    other = Pipeline.model_validate({"shard": SETTINGS.model_dump(), "fetch": {"profile": {"fps": 5}}})
    keep_configuration(copy, other, "20260102T000000-aaaaaa")
    done = repair(copy)
    assert f"media {path.parent.name} has other bytes than before: its row is replaced" in done.mended
    assert done.verified.problems == []
    assert [media.fps for media in copy.table(Media).rows(video_id=path.parent.name)] == [5]
    assert copy.table(Media).read().num_rows == 3


def test_what_no_row_vouches_for_is_removed_unless_a_row_may_be_lost(copy: Root) -> None:
    copy.storage.put_bytes(b"of a killed run", "media/folder:x/proxy.mp4")
    sorted(Path(copy.url, "tables/media/_delta_log").glob("*.json"))[-1].unlink()
    [lost] = {*copy.table(Video).keys().to_pylist()} - {*copy.table(Media).keys().to_pylist()}
    done = repair(copy)
    assert not copy.storage.exists("media/folder:x/proxy.mp4")
    assert copy.storage.exists(f"media/{lost}/proxy.mp4")
    assert f"media/{lost}/proxy.mp4" in done.verified.extra


def test_without_its_settings_nothing_is_fetched(copy: Root) -> None:
    path = first(copy, "media/*/proxy.mp4")
    for each in (path, first(copy, "pipeline.yaml"), first(copy, "runs/*.yaml")):
        flip(each)
    left = path.read_bytes()
    done = repair(copy)
    assert f"media {path.parent.name}: pipeline.yaml: not the bytes that its checksum is of" in done.not_mended
    assert path.read_bytes() == left
    assert len(done.verified.problems) == 3


# Each with what the next run has to fetch.
WINDOWS = {
    "repair: proxy fetched again, old row": 0,
    "repair: between the old row and the new": 1,
    "repair: checkpoint away, none made": 0,
}


@pytest.mark.parametrize("window", WINDOWS)
def test_killed_anywhere_the_same_command_or_the_next_run_goes_on(copy: Root, window: str) -> None:
    flip(first(copy, "media/*/proxy.mp4"))
    first(copy, "tables/narrations/_delta_log/*.checkpoint.parquet").unlink()
    other = Pipeline.model_validate({"shard": SETTINGS.model_dump(), "fetch": {"profile": {"fps": 5}}})
    keep_configuration(copy, other, "20260102T000000-aaaaaa")
    command = [sys.executable, "-m", "tests.crashes", window, "sayso", "verify", "--repair", "--root", copy.url]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ran.returncode == -signal.SIGKILL, ran.stdout + ran.stderr
    assert repair(copy).verified.problems == []
    fetch = Fetch(copy, other.fetch)
    assert stage_tally(copy, fetch).pending == WINDOWS[window]
    work(fetch)
    assert sorted(media.fps for media in copy.table(Media).rows()) == [5, 10, 10]
    assert verify(copy).problems == verify(copy).extra == []


def test_nothing_is_mended_while_a_run_is_at_work(copy: Root) -> None:
    with lease(copy, "at-work", ["shard"]), pytest.raises(RootBusy):
        repair(copy)


def test_a_whole_root_is_left_alone(copy: Root) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(copy.url).rglob("*") if path.is_file()}
    assert repair(copy) == Repaired(mended=[], not_mended=[], verified=verify(copy))
    assert {path: path.stat().st_mtime_ns for path in Path(copy.url).rglob("*") if path.is_file()} == before


def test_reports_tell_tables_apart(copy: Root) -> None:
    assert not check_table(copy, Transcript).exists
    assert check_table(copy, Shard).rows == 3
