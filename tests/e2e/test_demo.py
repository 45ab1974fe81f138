"""The main job on a small demo world: find, fetch, transcribe, align, shard, train on two ranks, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sayso.root import Root
from sayso.rows import Failure, Media, Narration, Shard, Video
from shards.plan import left_out

Command = Callable[..., Any]

# Enough to see every part at work; what it learns is measured by benchmarks/demo_retrieval.py.
SHORT = ("schedule.steps=8", "data.batch=16", "output.checkpoint_every=4")


@pytest.fixture(scope="module")
def demo(sayso: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a finished demo, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    ran = sayso("demo", "--root", folder, "--videos", "8", "--seed", "3", "--json", *SHORT, within=300)
    assert ran.code == 0, ran.err
    return folder, ran.json()


def test_the_site_has_the_faults_of_real_ones_and_the_stages_name_them(demo: tuple[Path, Any]) -> None:
    folder, result = demo
    stages = {stage["name"]: stage for stage in result["status"]["stages"]}
    assert stages["discover"]["done"] == 10  # eight videos, one again under another id, one that is gone
    assert stages["fetch"]["failed"] == {"http_404": 1, "truncated": 1}
    assert stages["fetch"]["done"] == 8
    assert stages["align"]["done"] == 8
    root = Root(str(folder / "root")).open()
    (copy,) = left_out(root).values()
    assert (copy.kind, copy.reason) == ("skip", "duplicate")
    assert copy.message == f"same bytes as {_copied(root, copy.id)}"
    retried = [row for row in root.table(Failure).rows(stage="fetch") if row.kind == "retry"]
    assert [row.reason for row in retried] == ["http_503"]
    assert all(row.video_id.startswith("saysodemo:") for row in root.table(Video).rows())


def _copied(root: Root, video_id: str) -> str:
    """The other video that was made of the same bytes."""
    digest_of = {row.video_id: row.source.sha256 for row in root.table(Media).rows()}
    (other,) = (other for other, digest in digest_of.items() if digest == digest_of[video_id] and other != video_id)
    return other


def test_no_video_is_cut_twice(demo: tuple[Path, Any]) -> None:
    root = Root(str(demo[0] / "root")).open()
    cut = {video for shard in root.table(Shard).rows() for video in shard.video_ids}
    assert cut
    assert not cut & left_out(root).keys()


def test_narrations_come_from_captions_and_from_speech(demo: tuple[Path, Any]) -> None:
    folder, _ = demo
    rows = list(Root(str(folder / "root")).open().table(Narration).rows())
    assert {row.source.partition(":")[0] for row in rows if row.kept} == {"subtitle", "asr"}


def test_retrieval_is_reported_beside_chance(demo: tuple[Path, Any]) -> None:
    _, result = demo
    measured = result["retrieval"]
    assert measured["candidates"] > 2
    assert measured["chance"]["r5"] == pytest.approx(min(100, 500 / measured["candidates"]))
    assert {"r1", "r5", "r10", "median_rank"} <= measured.keys()
    missing = measured["videos"]["of"] - measured["videos"]["found"]
    assert 0 <= missing <= 1  # the truncated one, if it is held out


def test_held_out_videos_were_not_trained_on(demo: tuple[Path, Any]) -> None:
    folder, _ = demo
    tested = {line.split(",")[0] for line in (folder / "retrieval.csv").read_text().splitlines()[1:]}
    manifest = json.loads((folder / "root/shards/clips/manifest.json").read_text())
    assert set(manifest["splits"]) == {"train", "test"}
    shards = list(Root(str(folder / "root")).open().table(Shard).rows())
    kept = {video for shard in shards if shard.split == "test" for video in shard.video_ids}
    refused = {row.id for row in Root(str(folder / "root")).open().table(Failure).rows(stage="fetch")}
    assert kept
    assert tested <= kept | refused
    assert not tested & {video for shard in shards if shard.split == "train" for video in shard.video_ids}


def test_training_left_what_is_needed_to_look_at_it(demo: tuple[Path, Any]) -> None:
    folder, result = demo
    metrics = [json.loads(line) for line in (folder / "model" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == result["training"]["steps"]
    assert Path(result["training"]["model"]).is_dir()


def test_the_second_run_finds_everything_done(demo: tuple[Path, Any], sayso: Command) -> None:
    folder, first = demo
    again = sayso("demo", "--root", folder, "--videos", "8", "--seed", "3", "--json", *SHORT, within=40)
    assert again.code == 0, again.err
    assert again.json()["retrieval"] == first["retrieval"]
    assert again.json()["training"]["started_from"] == first["training"]["steps"]


def test_the_commands_to_try_next_work(demo: tuple[Path, Any], sayso: Command) -> None:
    folder, result = demo
    failures, _, evaluate = result["next"]
    for command in (failures, evaluate):
        ran = sayso(*command.split()[1:], within=60)
        assert ran.code == 0, ran.err
    assert sayso("verify", "--root", folder / "root").code == 0
