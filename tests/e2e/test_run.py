"""The ingestion of a folder, seen through the command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.truth import VideoTruth
from sayso.root import Root
from sayso.rows import Media, Narration, Shard

Command = Callable[..., Any]


def test_status_tells_every_stage(sayso: Command, undisturbed: Path) -> None:
    ran = sayso("status", "--root", undisturbed, "--json")
    assert ran.code == 0
    stages = {stage["name"]: stage for stage in ran.json()["stages"]}
    assert list(stages) == ["discover", "fetch", "transcribe", "captions", "align", "shard"]
    for stage in stages.values():
        assert {"name", "total", "done", "skipped", "failed"} <= stage.keys()
        counted = stage["done"] + sum(stage["skipped"].values()) + sum(stage["failed"].values())
        assert counted + stage["pending"] == stage["total"]
        assert stage["pending"] == 0
    assert stages["fetch"]["done"] == 4
    assert stages["captions"]["skipped"] == {"no_captions": 4}
    assert stages["transcribe"]["x_realtime"] > 1


def test_narrations_say_what_was_said(undisturbed: Path, small_world: Path) -> None:
    """Words of the narrations against the words of the truth: nearly all are there, at their time."""
    root = Root(str(undisturbed)).open()
    narrations = list(root.table(Narration).rows())
    sources = {row.source.sha256: row.video_id for row in _media(root)}
    found = expected = 0
    for path in sorted((small_world / "truth").glob("*.json")):
        truth = VideoTruth.model_validate_json(path.read_bytes())
        video = sources[_sha256(small_world / "videos" / f"{path.stem}.mp4")]
        heard = [row for row in narrations if row.video_id == video]
        for said in truth.said:
            for word in said.words:
                near = [row for row in heard if row.start - 0.5 <= (word.start + word.end) / 2 <= row.end + 0.5]
                expected += 1
                found += any(_plain(word.text) in map(_plain, row.text.split()) for row in near)
    assert expected > 50
    assert found / expected > 0.85, f"{found} of {expected} words"


def test_a_second_run_does_nothing_and_changes_nothing(
    sayso: Command, small_videos: Path, undisturbed: Path, contents_of: Callable[[Path], Any]
) -> None:
    before = contents_of(undisturbed)
    ran = sayso("run", "--videos", small_videos, "--root", undisturbed, within=20)
    assert ran.code == 0
    assert contents_of(undisturbed) == before


def test_the_configuration_is_kept_without_secrets(sayso: Command, small_videos: Path, tmp_path: Path) -> None:
    secret = "http://me:hunter2@proxy.example:3128"
    ran = sayso(
        "discover", "--videos", small_videos, "--root", tmp_path / "root", f"sites.proxy={secret}", "align.take=all"
    )
    assert ran.code == 0, ran.err
    kept = (tmp_path / "root" / "pipeline.yaml").read_text()
    assert "take: all" in kept
    assert "hunter2" not in kept
    assert "hunter2" not in ran.err


def test_dry_run_starts_nothing(sayso: Command, small_videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    ran = sayso("run", "--videos", small_videos, "--root", root, "--dry-run", "--json", "fetch.profile.fps=12")
    assert ran.code == 0
    planned = ran.json()
    assert planned["configuration"]["fetch"]["profile"]["fps"] == 12
    assert [stage["stage"] for stage in planned["would"]] == ["fetch", "transcribe", "captions", "align", "shard"]
    assert not root.exists()


@pytest.mark.parametrize("kind", ["tar", "index.parquet", "proxy"])
def test_one_flipped_byte_is_found_and_named(sayso: Command, undisturbed: Path, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "root"
    shutil.copytree(undisturbed, copy)
    root = Root(str(copy)).open()
    shard, media = next(root.table(Shard).rows()), next(root.table(Media).rows())
    key = {"tar": shard.key, "index.parquet": shard.index_key, "proxy": media.key}[kind]
    path = copy / key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    ran = sayso("verify", "--root", copy, "--json")
    assert ran.code == 1
    assert [problem for problem in ran.json()["problems"] if key in problem]
    assert len(ran.json()["problems"]) == 1


def test_a_missing_table_file_is_found(sayso: Command, undisturbed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "root"
    shutil.copytree(undisturbed, copy)
    next((copy / "tables" / "narrations").glob("*.parquet")).unlink()
    ran = sayso("verify", "--root", copy, "--json")
    assert ran.code == 1
    assert ran.json()["problems"][0].startswith("tables/narrations")


def test_a_forgotten_video_is_not_fetched_again(
    sayso: Command, undisturbed: Path, small_videos: Path, tmp_path: Path, contents_of: Callable[[Path], Any]
) -> None:
    copy = tmp_path / "root"
    shutil.copytree(undisturbed, copy)
    root = Root(str(copy)).open()
    video = next(root.table(Shard).rows()).video_ids[0]
    ran = sayso("forget", video, "--root", copy, "--reason", "asked by the uploader", "--json")
    assert ran.code == 0, ran.err
    assert ran.json()["scanned"]["found"] == []
    before = contents_of(copy)
    shutil.copy(next(small_videos.glob("*.mp4")), tmp_path / "named-otherwise.mp4")
    ran = sayso("run", "--videos", small_videos, "--videos", tmp_path / "named-otherwise.mp4", "--root", copy)
    assert ran.code == 0, ran.err
    assert contents_of(copy) == before
    assert video not in [row.video_id for row in _media(root)]
    assert len(_media(root)) == 3
    ran = sayso("verify", "--root", copy)
    assert ran.code == 0, ran.out


def test_verify_mends_what_it_can(
    sayso: Command, undisturbed: Path, tmp_path: Path, contents_of: Callable[[Path], Any]
) -> None:
    copy = tmp_path / "root"
    shutil.copytree(undisturbed, copy)
    shard = next(Root(str(copy)).open().table(Shard).rows())
    media = _media(Root(str(copy)))[0]
    for key in (shard.key, media.key):
        (copy / key).write_bytes(b"broken")
    ran = sayso("verify", "--root", copy, "--repair")
    assert ran.code == 0, ran.out + ran.err
    assert f"mended: media {media.video_id}" in ran.out
    assert contents_of(copy) == contents_of(undisturbed)
    assert (copy / media.key).read_bytes() == (undisturbed / media.key).read_bytes()
    (copy / next(copy.glob("tables/videos/*.parquet"))).write_bytes(b"broken")
    ran = sayso("verify", "--root", copy, "--repair")
    assert ran.code == 1
    assert "NOT mended: 1 files of table videos: their 4 rows come from outside" in ran.out


def test_doctor_finds_this_machine_fit(sayso: Command) -> None:
    ran = sayso("doctor", "--json")
    assert ran.code == 0, ran.out
    checks = {check["name"]: check for check in ran.json()}
    assert checks["ffmpeg"]["ok"]
    assert checks["whisper"]["ok"]


def _media(root: Root) -> list[Media]:
    return list(root.table(Media).rows())


def _sha256(path: Path) -> str:
    from sayso.storage import hash_file

    return hash_file(path)[0]


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())
