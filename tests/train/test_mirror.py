"""A run's second place on a real S3 server, and what a machine that was taken away leaves there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sayso.caches import copy_of
from sayso.errors import InputError, ModelNotFound, RootBusy
from sayso.storage import Storage
from tests.conftest import S3
from train.launch import TrainResult, launch
from train.metrics import read_metrics
from train.mirror import Mirror, fetch_model
from train.run import Latest, latest, point_to, step_folder
from train.weights import load_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps its copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def take_step(folder: Path, step: int) -> Latest:
    """A run's files as they are after a step, with a checkpoint of which each byte says the step."""
    target = step_folder(folder / "checkpoints", step)
    target.mkdir(parents=True)
    for name in ("model.pt", "rank-0.pt"):
        (target / name).write_bytes(bytes([step]) * 1000)
    for name in ("recipe.yaml", "vocabulary.json", "metrics.jsonl", "starts.jsonl", "tensorboard/events"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{name} after {step}")
    reached = Latest(step=step, reader={"epoch": 0, "position": step})
    point_to(folder / "checkpoints", reached)
    return reached


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fresh_machine_gets_the_newest_checkpoint_that_is_there_whole(s3: S3, tmp_path: Path) -> None:
    url, old, new = s3.url("mirror"), tmp_path / "old", tmp_path / "new"
    here = Mirror(url, old)
    for step in (1, 2, 3):
        reached = take_step(old, step)
        here.put_checkpoint(step)
        here.put_pointer(reached, keep=2)
    whole = contents(old)
    take_step(old, 4)
    here.put_checkpoint(4)  # and the machine is gone before the pointer says so

    Mirror(url, new).fetch()
    expected = {key: data for key, data in whole.items() if "step-" not in key or "step-00000003" in key}
    assert contents(new) == expected
    assert {key.split("/")[1] for key in Storage(url).list("checkpoints")} == {
        "latest.json",
        *(f"step-{step:08d}" for step in (2, 3, 4)),
    }
    shutil.rmtree(step_folder(new / "checkpoints", 3))
    again = take_step(new, 3)
    Mirror(url, new).put_pointer(again, keep=2)  # what was given up is removed
    assert not any("step-00000004" in key for key in Storage(url).list("checkpoints"))


def test_a_folder_that_is_further_stays_as_it_is(s3: S3, tmp_path: Path) -> None:
    url = s3.url("mirror")
    mirror = Mirror(url, tmp_path)
    mirror.fetch()  # there is nothing yet
    reached = take_step(tmp_path, 1)
    mirror.put_checkpoint(1)
    mirror.put_pointer(reached, keep=2)
    take_step(tmp_path, 2)
    before = contents(tmp_path)
    mirror.fetch()
    assert contents(tmp_path) == before
    shutil.rmtree(step_folder(tmp_path / "checkpoints", 2))
    mirror.catch_up(keep=2)  # has nothing to give: what the pointer names is gone
    assert mirror.latest() == reached
    Storage(url).put_bytes(b"{", "checkpoints/latest.json")
    with pytest.raises(InputError, match=r"checkpoints/latest\.json cannot be read .*remove it to start from step 0"):
        mirror.fetch()


def test_an_upload_that_failed_is_made_up_for_by_the_next_start(
    straight: TrainResult, small_recipe: Path, s3: S3, tmp_path: Path
) -> None:
    folder, url = tmp_path / "run", s3.url("mirror")
    shutil.copytree(straight.folder, folder)
    again = launch(small_recipe, [f"output.folder={folder}", f"output.mirror={url}"])
    assert again.started_from == again.steps == 60
    assert Mirror(url, folder).latest() == latest(folder / "checkpoints")
    assert load_model(fetch_model(url)).card.step == 60


def test_an_upload_that_was_cut_off_is_not_among_those_that_are_kept(s3: S3, tmp_path: Path) -> None:
    url = s3.url("mirror")
    here = Mirror(url, tmp_path)
    for step in (1, 2):
        reached = take_step(tmp_path, step)
        here.put_checkpoint(step)
        here.put_pointer(reached, keep=2)
    take_step(tmp_path, 3)
    here.put_checkpoint(3)  # and the machine is gone before the pointer says so
    shutil.rmtree(step_folder(tmp_path / "checkpoints", 3))
    reached = take_step(tmp_path, 5)
    again = Mirror(url, tmp_path)
    again.put_checkpoint(5)
    again.put_pointer(reached, keep=2)
    assert {key.split("/")[1] for key in Storage(url).list("checkpoints")} == {
        "latest.json",
        *(f"step-{step:08d}" for step in (2, 5)),
    }


def test_of_two_runs_at_one_url_the_second_to_get_further_ends(s3: S3, tmp_path: Path) -> None:
    url = s3.url("mirror")
    runs = [Mirror(url, tmp_path / name) for name in ("one", "other")]
    for run in runs:
        run.expect_nobody()
    for step in (1, 2):
        reached = take_step(tmp_path / "one", step)
        runs[0].put_checkpoint(step)
        runs[0].put_pointer(reached, keep=2)
    late = take_step(tmp_path / "other", 1)
    with pytest.raises(RootBusy, match=r"another run writes there, it has reached step 2; stop one of the two"):
        runs[1].put_pointer(late, keep=2)
    assert runs[0].latest() == reached


def test_a_copy_of_what_is_at_a_url_never_counts_for_more(s3: S3, cache: Path) -> None:
    url = s3.url("run")
    folder = copy_of(url, "runs")
    assert folder.is_relative_to(cache)
    reached = take_step(folder, 1)
    here = Mirror(url, folder)
    here.put_checkpoint(1)
    here.put_pointer(reached, keep=2)
    whole = contents(folder)
    take_step(folder, 2)  # and the machine is gone before it is uploaded
    here.fetch()
    assert contents(folder) == whole
    storage = Storage(url)
    for key in storage.list(""):
        storage.remove(key)
    (folder / ".lock").touch()  # by which a start holds the folder
    here.fetch()
    here.catch_up(keep=2)
    assert contents(folder) == {".lock": b""}
    here.put_files()
    assert ".lock" not in storage.list("")


def test_a_run_goes_on_from_its_url_on_another_machine(
    straight: TrainResult, small_recipe: Path, s3: S3, cache: Path, tmp_path: Path
) -> None:
    url = s3.url("run")
    # The whole schedule, but no more steps than a spot instance gives: the rates are those of the unbroken run.
    lines = read_metrics(Path(straight.folder) / "metrics.jsonl")
    first = tmp_path / "first"
    shutil.copytree(straight.folder, first)
    shutil.rmtree(first / "checkpoints" / "step-00000060")
    cut = Latest(step=57, reader={**latest(first / "checkpoints").reader, "epoch": 28, "position": 16})
    point_to(first / "checkpoints", cut)
    here = Mirror(url, first)
    here.put_checkpoint(57)
    here.put_pointer(cut, keep=2)

    second = launch(small_recipe, [f"output.folder={url}"])
    assert second.started_from == 57
    assert second.folder == url
    assert second.model == f"{url}/checkpoints/step-00000060"
    copy = copy_of(url, "runs")
    assert copy.is_relative_to(cache)
    found = read_metrics(copy / "metrics.jsonl")
    assert [line["loss"] for line in found] == [line["loss"] for line in lines]
    # What the ranks uploaded is what a third machine gets, which keeps the run in a folder of its own.
    shutil.rmtree(cache)
    third = launch(small_recipe, [f"output.folder={tmp_path / 'third'}", f"output.mirror={url}"])
    assert (third.started_from, third.loss) == (60, straight.loss)
    starts = [json.loads(line) for line in (tmp_path / "third" / "starts.jsonl").read_text().splitlines()]
    assert [start["from_step"] for start in starts] == [0, 57]
    assert list((tmp_path / "third" / "tensorboard").iterdir())

    expected = load_model(Path(straight.model)).model.state_dict()
    for place in (url, f"{url}/checkpoints/", f"{url}/checkpoints/step-00000060", third.model, third.folder):
        state = load_model(fetch_model(place)).model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in state.items()), place
    with pytest.raises(ModelNotFound, match=r"no model in s3://.*/tensorboard: model\.pt is missing"):
        fetch_model(f"{url}/tensorboard")
