"""Which files a protocol's videos are, and what is said where they cannot be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.evaluate import evaluate_protocol, find_files, missing_lines, pipeline_of
from ops.pipeline import CONFIG_KEY
from sayso.errors import ConfigError, InputError, ModelNotFound, RootError
from sayso.root import Root
from shards.reader import ReaderSettings
from tests.films import gated_model, random_model
from train.evaluate.crosstask import CrossTask
from train.evaluate.hmdb51 import HMDB51
from train.evaluate.protocols import PROTOCOLS
from train.evaluate.text_to_clip import YouCook2


@pytest.fixture
def clips_csv(tmp_path: Path) -> Path:
    path = tmp_path / "youcook2_val.csv"
    path.write_text("end,start,task,text,video_id\n6,1,226,now the red one moves,aaa\n")
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_files_are_named_by_the_id_with_any_ending_in_any_folder(tmp_path: Path) -> None:
    touch(tmp_path, "226/aaa.mkv", "b-_.webm", "brush_hair/Brushing__[_NEW_]!_0.avi", "ccc.MP4", "ccc.txt", "ddd.wav")
    touch(tmp_path, ".sayso/media/eee.mp4")
    found = find_files(["aaa", "b-_", "Brushing__[_NEW_]!_0", "ccc", "ddd", "eee", "CCC"], tmp_path)
    assert {name: str(path.relative_to(tmp_path)) for name, path in found.items()} == {
        "aaa": "226/aaa.mkv",
        "b-_": "b-_.webm",
        "Brushing__[_NEW_]!_0": "brush_hair/Brushing__[_NEW_]!_0.avi",
        "ccc": "ccc.MP4",
    }


def test_files_may_be_named_as_yt_dlp_does_by_itself(tmp_path: Path) -> None:
    touch(tmp_path, "a title [with] more [aaa].webm", "first [bbb].mp4", "z/bbb.mp4")
    found = find_files(["aaa", "bbb", "with"], tmp_path)
    assert {name: path.name for name, path in found.items()} == {
        "aaa": "a title [with] more [aaa].webm",
        "bbb": "bbb.mp4",
    }


def test_missing_videos_are_counted_by_reason_with_the_first_few() -> None:
    missing = {**{f"v{n}": "no such file" for n in range(7)}, "x": "fetch: truncated"}
    assert list(missing_lines(missing)) == [
        "missing (no such file): 7 videos: v0, v1, v2, v3, v4, ...",
        "missing (fetch: truncated): 1 videos: x",
    ]


def test_proxies_have_the_pictures_that_the_model_looks_at(root: Root) -> None:
    quick, coarse = ReaderSettings(fps=12.5, size=288), ReaderSettings(fps=5, size=112)
    profile = pipeline_of(root, coarse, []).fetch.profile
    assert (profile.fps, profile.short_side) == (10, 256)
    profile = pipeline_of(root, quick, ["fetch.profile.crf=18"]).fetch.profile
    assert (profile.fps, profile.short_side, profile.crf) == (13, 288, 18)
    profile = pipeline_of(root, quick, ["fetch.profile.fps=25"]).fetch.profile
    assert (profile.fps, profile.short_side) == (25, 288)


def test_a_root_that_is_there_goes_on_with_its_own_settings(root: Root) -> None:
    root.storage.put_bytes(b"fetch: {profile: {crf: 20}}", CONFIG_KEY)
    profile = pipeline_of(root, ReaderSettings(fps=16), []).fetch.profile
    assert (profile.fps, profile.crf) == (10, 20)


def test_what_cannot_be_measured_says_what_to_do(clips_csv: Path, tmp_path: Path) -> None:
    model = random_model(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ConfigError, match="give --videos, a folder of video files, or --root"):
        evaluate_protocol(YouCook2, model, clips_csv)
    with pytest.raises(InputError, match=r"none of the 1 videos of the annotations is there; .* aaa\.mp4"):
        evaluate_protocol(YouCook2, model, clips_csv, videos=tmp_path / "empty")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        evaluate_protocol(YouCook2, model, clips_csv, videos=nowhere)
    with pytest.raises(ConfigError, match=r"fetch\.keep_original=true: .*; give --videos"):
        evaluate_protocol(YouCook2, model, clips_csv, root=str(nowhere), overrides=["fetch.keep_original=true"])
    with pytest.raises(RootError, match="not a sayso root"):
        evaluate_protocol(YouCook2, model, clips_csv, root=str(nowhere))
    with pytest.raises(ModelNotFound, match="no such folder"):
        evaluate_protocol(YouCook2, nowhere, clips_csv, root=str(nowhere))
    assert not (tmp_path / "empty" / ".sayso").exists()


def test_what_a_model_cannot_be_asked_is_said_before_its_videos_are_ingested(tmp_path: Path) -> None:
    videos, release = tmp_path / "videos", tmp_path / "release"
    touch(videos, "aaa.mp4")
    touch(release, "annotations/101_aaa.csv")
    (release / "tasks_primary.txt").write_text("101\nShow\nhttp://x\n1\nthe red one\n")
    (release / "videos_val.csv").write_text("101,aaa,http://v\n")
    with pytest.raises(ConfigError, match="crosstask looks at one window a second"):
        evaluate_protocol(CrossTask, random_model(tmp_path / "model"), release, videos=videos, windows=4)
    (tmp_path / "hmdb51.csv").write_text("video_id,label,split1,split2,split3\naaa.avi,run_test,1,1,2\n")
    with pytest.raises(InputError, match="a gated model has no mixed_5c"):
        evaluate_protocol(HMDB51, gated_model(tmp_path / "gated"), tmp_path / "hmdb51.csv", videos=videos)
    assert not (videos / ".sayso").exists()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_its_command(name: str) -> None:
    ran = CliRunner().invoke(app, ["evaluate", name, "--help"])
    assert ran.exit_code == 0
    assert "--annotations" in ran.stdout
