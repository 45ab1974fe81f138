"""Forgetting videos: nothing of them is left, all else is as it was, and they never come back."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.discover import record
from ingest.documents import record_pages
from ingest.images import Images, ImagesSettings
from ops.forget import forget
from ops.pipeline import Pipeline, keep_configuration
from ops.scan import Names, scan
from ops.verify import verify
from sayso.engine.lease import lease
from sayso.errors import CorruptObject, InputError, RootBusy, Skip
from sayso.root import Root
from sayso.rows import (
    PLACE,
    Document,
    Failure,
    Forgotten,
    Media,
    Narration,
    Page,
    Picture,
    Plan,
    Shard,
    Transcript,
    Video,
)
from shards.plan import plan_export
from shards.reader import ClipReader, ReaderSettings
from shards.settings import ShardSettings
from tests.conftest import REPOSITORY, S3
from tests.contents import content_hash
from tests.made import failure
from tests.shards.conftest import Lab

GONE = "site:v1"
STAYS = ["site:v10", "site:v11", "site:v2"]
"""Ids that the forgotten one is the beginning of, and another."""
ALONE = "site:v3"
"""A video that has a shard for itself."""
SETTINGS = ShardSettings(samples_per_shard=4, val=0.0, test=0.0)


def fill(root: Root, proxy: Path) -> Root:
    """Videos that share shards, with rows in all tables, and configurations that name one of them."""
    for ids in ([GONE, *STAYS], [ALONE]):
        Lab.add_videos(root, ids, proxy.read_bytes(), 4)
        Lab.make_shards(root, SETTINGS)
    root.storage.put_bytes(b"1\n00:00 --> 00:01\nhello\n", f"media/{GONE}/subtitle.en.srt")
    for video in (GONE, *STAYS):
        Lab.append(root, [Transcript(video_id=video, source="asr:tiny", language="en", speech_seconds=1, spans=[])])
        Lab.append(root, [failure(video, "skip", "no_captions", stage="captions")])
    Lab.append(root, [failure("site:w", "skip", "duplicate", stage="plan", message=f"same bytes as {GONE}")])
    keep_configuration(root, Pipeline(videos=["./folder", f"file:///{GONE}"], shard=SETTINGS), "one")
    return root


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proxy") / "proxy.mp4"
    Lab.make_proxy(path, 4)
    return path


@pytest.fixture(scope="module")
def filled(proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> Root:
    return fill(Root(str(tmp_path_factory.mktemp("filled") / "root")).create(), proxy)


@pytest.fixture
def copy(filled: Root, tmp_path: Path) -> Root:
    return Root(shutil.copytree(filled.url, tmp_path / "copy").as_posix())


@pytest.fixture(scope="module")
def undisturbed(filled: Root, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = Root(shutil.copytree(filled.url, tmp_path_factory.mktemp("undisturbed") / "root").as_posix())
    forget(root, [GONE, ALONE])
    return contents(root)


def contents(root: Root) -> dict[str, Any]:
    objects = {
        key: root.storage.read(key) for prefix in ("media", "shards", "runs") for key in root.storage.list(prefix)
    }
    rows = sorted((row.stage, row.id) for row in root.table(Failure).rows())
    names = sorted(root.table(Forgotten).keys().to_pylist())
    return {**content_hash(root), **objects, "failures": rows, "forgotten": names}


def samples(root: Root) -> dict[str, bytes]:
    """The members of all tars, by name."""
    found: dict[str, bytes] = {}
    for key in root.storage.list("shards"):
        if key.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(root.storage.read(key))) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    assert content is not None
                    found[member.name] = content.read()
    return found


def raw(root: Root, needle: str) -> list[str]:
    """Files with an id in their name or as plain bytes in them, looked for independently; not those of the record."""
    paths = [path for path in Path(root.url).rglob("*") if path.is_file() and "tables/forgotten" not in str(path)]
    return [str(path) for path in paths if needle in str(path) or needle.encode() in path.read_bytes()]


def test_a_video_is_removed_everywhere_and_all_else_stays(copy: Root) -> None:
    before, rows = samples(copy), {model: len(copy.table(model).keys()) for model in (Video, Media, Narration, Plan)}
    mine = Names([GONE])
    assert scan(copy.storage, mine, leave_out="tables/forgotten/").found
    done = forget(copy, [GONE], "asked by the uploader")
    assert done.proven
    assert done.scanned
    assert min(done.scanned.objects, done.scanned.bytes, done.scanned.rows, done.scanned.tar_members) > 10
    assert raw(copy, "site:v1@") == raw(copy, "site_v1-") == raw(copy, "/site:v1/") == raw(copy, '"site:v1"') == []
    after = samples(copy)
    assert after == {name: data for name, data in before.items() if not name.startswith("site_v1-")}
    assert 0 < len(after) < len(before)
    assert len(copy.table(Video).keys()) == rows[Video] - 1
    assert done.rows["videos"] == done.rows["media"] == done.rows["transcripts"] == 1
    assert done.rows["failures"] == 2
    assert done.samples == 2
    assert done.shards_made
    assert sorted(row.id for row in copy.table(Failure).rows()) == STAYS
    assert yaml.safe_load(copy.storage.read("pipeline.yaml"))["videos"] == ["./folder"]
    remembered = next(copy.table(Forgotten).rows())
    assert (remembered.id, remembered.reason) == (GONE, "asked by the uploader")
    assert remembered.source_sha256
    found = verify(copy)
    assert (found.problems, found.extra) == ([], [])


def test_readers_read_the_new_shards(copy: Root) -> None:
    forget(copy, [GONE])
    settings = ReaderSettings(frames=2, size=32, per_video=False)
    reader = ClipReader(f"{copy.url}/shards/clips", split="train", settings=settings, seed=0)
    assert {clip["video_id"] for clip in reader} == {*STAYS, ALONE}
    assert reader.samples == 2 * 4
    assert reader.broken == 0


def test_a_shard_that_becomes_empty_goes(copy: Root) -> None:
    [own] = [shard for shard in copy.table(Shard).rows() if shard.video_ids == [ALONE]]
    done = forget(copy, [ALONE])
    assert done.shards_gone == [f"clips/{own.shard}"]
    assert done.shards_made == []
    assert not any(own.shard in key for key in copy.storage.list("shards"))
    assert f"{own.export}/{own.shard}" not in copy.table(Plan).keys().to_pylist()
    assert verify(copy).problems == []


def test_forgetting_all_leaves_no_manifest(copy: Root) -> None:
    assert forget(copy, [GONE, ALONE, *STAYS]).proven
    assert copy.storage.list("media") == []
    assert copy.storage.list("shards") == ["shards/clips/export.json"]
    found = verify(copy)
    assert (found.problems, found.extra) == ([], [])


def test_what_is_forgotten_does_not_come_back(copy: Root) -> None:
    media = next(copy.table(Media).rows(video_id=GONE))
    forget(copy, [GONE])
    videos = [Video(video_id=each, url=f"file:///{each}") for each in (GONE, "site:new")]
    assert record(copy, videos).new == 1
    # The same bytes under another id, fetched by a worker that did not know.
    twin = media.model_copy(update={"video_id": "site:new", "key": "media/site:new/proxy.mp4"})
    Lab.append(copy, [twin])
    Lab.append(copy, [Lab.narration("site:new", 0.25, 1.5)])
    plans = len(copy.table(Plan).keys())
    plan_export(copy, SETTINGS)
    assert len(copy.table(Plan).keys()) == plans
    assert forget(copy, [GONE]).copies == ["site:new"]


def test_doing_it_again_changes_nothing(copy: Root, undisturbed: dict[str, Any]) -> None:
    forget(copy, [GONE])
    forget(copy, [ALONE])
    again = forget(copy, [])
    assert again.ids == [GONE, ALONE]
    assert again.proven
    assert not any(again.rows.values())
    assert (again.shards_made, again.shards_gone, again.objects) == ([], [], 0)
    assert contents(copy) == undisturbed


def test_a_dry_run_says_what_would_go_and_changes_nothing(copy: Root) -> None:
    before = contents(copy)
    told = forget(copy, [GONE, ALONE], dry_run=True)
    assert contents(copy) == before
    done = forget(copy, [GONE, ALONE])
    assert (told.samples, told.shards_gone) == (done.samples, done.shards_gone)
    made = {"shards": told.rows["shards"] - len(told.shards_gone)}
    assert {**told.rows, "plans": 1} == done.rows
    assert len(told.shards_made) == len(done.shards_made) == made["shards"]


def test_nothing_is_forgotten_while_a_run_is_at_work(copy: Root) -> None:
    before = contents(copy)
    with lease(copy, "at-work", ["fetch"]), pytest.raises(RootBusy, match=r"run at-work .* works on fetch; wait"):
        forget(copy, [GONE])
    assert contents(copy) == before
    with pytest.raises(InputError, match="give ids"):
        forget(copy, [])


WINDOWS = [
    "forget: remembered",
    "forget: configurations cleaned",
    "forget: some objects removed",
    "forget: rows of the first tables removed",
    "forget: between rows and plans",
    "forget: between plans and shards",
    "forget: tar in place, no row",
    "forget: shards made, before the manifest",
    "forget: old files removed in part",
    "forget: before it is proven",
]


@pytest.mark.parametrize("window", WINDOWS)
def test_killed_anywhere_it_is_finished_by_the_same_command(
    window: str, copy: Root, undisturbed: dict[str, Any]
) -> None:
    command = [sys.executable, "-m", "tests.crashes", window, "sayso", "forget", GONE, ALONE, "--root", copy.url]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ran.returncode == -signal.SIGKILL, ran.stdout + ran.stderr
    assert len(copy.table(Forgotten).keys()) == 2
    assert forget(copy, []).proven
    assert contents(copy) == undisturbed
    assert verify(copy).problems == []


def test_on_s3_too(s3: S3, proxy: Path, undisturbed: dict[str, Any]) -> None:
    root = fill(Root(s3.url("forget")).create(), proxy)
    done = forget(root, [GONE, ALONE])
    assert done.proven
    assert json.loads(root.storage.read("sayso.json")) == {"format": 1}
    found = contents(root)
    assert {key: found[key] for key in found if key.endswith((".tar", ".mp4"))} == {
        key: undisturbed[key] for key in undisturbed if key.endswith((".tar", ".mp4"))
    }
    assert verify(root).problems == []


def test_a_broken_file_of_a_table_is_not_written_anew(copy: Root) -> None:
    path = next(Path(copy.url, "tables/narrations").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptObject, match="`sayso verify --repair` first"):
        forget(copy, [GONE])
    assert copy.table(Forgotten).keys().to_pylist() == [GONE]


def test_a_document_is_forgotten_as_a_video_is(tmp_path: Path) -> None:
    root = Root(str(tmp_path / "root")).create()
    pages = [Page(document_id=f"document:{each}", text=f"{PLACE}{each}", images=["file:///x.jpg"]) for each in "ab"]
    assert record_pages(root, pages).new == 2
    for page in pages:
        stored = root.storage.put_bytes(page.text.encode(), f"media/{page.document_id}/0.jpg")
        picture = Picture(**stored.model_dump(), width=9, height=9, url=page.images[0])
        Lab.append(root, [Document(document_id=page.document_id, text=page.text, images=[picture], lost=[])])
    assert forget(root, ["document:a"]).proven
    assert [row.document_id for row in root.table(Document).rows()] == ["document:b"]
    assert root.storage.list("media") == ["media/document:b/0.jpg"]
    assert record_pages(root, pages).new == 0
    stage = Images(root, ImagesSettings())
    stage.open()
    with pytest.raises(Skip) as caught:
        stage(pages[0])
    assert caught.value.reason == "forgotten"
