"""Real runs under the DeepSpeed launcher. Each costs seconds, so they are few and each shows several things."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from sayso.errors import ConfigError, InputError, WorkFailed
from train.launch import TrainResult, launch
from train.metrics import read_metrics
from train.run import latest
from train.weights import load_model

LAUNCH = "import sys; from train.launch import launch; launch(sys.argv[1], sys.argv[2:])"
SOON = 60.0


def wait_for(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes that were started for a run's folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or [])
    ]


def start_and_stop(recipe: Path, folder: Path, number: signal.Signals, *, after: int) -> int:
    """Start a run, send a signal to who started it once a checkpoint after some step is there; its exit code."""
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, str(recipe), f"output.folder={folder}"])
    wait_for(lambda: latest(folder / "checkpoints").step > after, "no checkpoint came")
    process.send_signal(number)
    code = process.wait(timeout=SOON)
    wait_for(lambda: not processes_of(folder), "processes were left behind")
    return code


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(folder / "metrics.jsonl")]


def test_a_run_learns_and_leaves_what_others_need(straight: TrainResult) -> None:
    folder = Path(straight.folder)
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert sum(line["loss"] for line in lines[-5:]) < 0.8 * sum(line["loss"] for line in lines[:5])
    assert all(line["samples_per_second"] > 0 and 0 <= line["data_wait"] <= 1 for line in lines)
    assert lines[0]["lr"] == pytest.approx(lines[3]["lr"] / 4)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "latest.json",
        "step-00000057",
        "step-00000060",
    ]
    trained = load_model(Path(straight.model))
    assert trained.card.step == 60
    assert "red" in trained.vocabulary.words


def test_a_finished_run_started_again_says_so_and_ends(
    straight: TrainResult, small_recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = launch(small_recipe)
    assert "already trained, 60 of 60 steps" in capfd.readouterr().err
    assert (again.started_from, again.loss) == (60, straight.loss)
    assert again.seconds < 2


def test_a_run_killed_and_interrupted_goes_on_with_the_same_losses(
    straight: TrainResult, small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broken"
    assert start_and_stop(small_recipe, folder, signal.SIGKILL, after=0) == -signal.SIGKILL
    killed_at = latest(folder / "checkpoints").step
    assert 3 <= killed_at < 60
    half_written = folder / "checkpoints" / "step-00000059"  # as a kill while writing leaves it
    half_written.mkdir(exist_ok=True)
    (half_written / "model.pt").write_bytes(b"half")

    assert start_and_stop(small_recipe, folder, signal.SIGINT, after=killed_at) == 1
    interrupted_at = latest(folder / "checkpoints").step
    assert killed_at < interrupted_at < 60
    assert not half_written.exists()
    said = capfd.readouterr().err
    assert f"going on after step {killed_at} of 60" in said
    assert "training was stopped by SIGINT; the same command goes on from the last checkpoint" in said

    finished = launch(small_recipe, [f"output.folder={folder}"])
    assert finished.started_from == interrupted_at
    assert losses(folder) == losses(Path(straight.folder))


def test_a_checkpoint_that_holds_code_is_refused_and_the_code_not_run(
    straight: TrainResult, small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, mark = tmp_path / "foreign", tmp_path / "mark"
    shutil.copytree(straight.folder, folder)

    class Code:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(mark),)

    newest = folder / "checkpoints" / "step-00000060"
    for name in ("mp_rank_00_model_states.pt", "model.pt"):
        (newest / name).write_bytes(pickle.dumps(Code(), protocol=2))
    with pytest.raises(WorkFailed, match="ended with code 2"):
        launch(small_recipe, [f"output.folder={folder}", "schedule.steps=64"])
    assert "step-00000060 does not fit this recipe or is damaged" in capfd.readouterr().err
    with pytest.raises(InputError, match="is not a model that sayso wrote"):
        load_model(newest)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.video.width=0.5"],
            r"holds a run of another recipe \(model\.video\.width is 0\.125 there and 0\.5 here",
        ),
        (["data.split=tets"], r"no split 'tets' \(there are: test, train\)"),
        (["data.root=/nowhere"], "give <root>/shards/<export>"),
        (["engine.device=cuda"], r"engine\.ranks 2: this machine has \d CUDA devices"),
        (["data.batch=1000"], r"data\.batch 1000 is more than"),
        (["model.text.vectors=/nowhere.npz", "output.folder=FRESH"], r"no word vectors in /nowhere\.npz"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    overrides: list[str], message: str, straight: TrainResult, small_recipe: Path, tmp_path: Path
) -> None:
    fresh = [override.replace("FRESH", str(tmp_path / "fresh")) for override in overrides]
    with pytest.raises((ConfigError, InputError), match=message):
        launch(small_recipe, fresh)


def test_other_data_does_not_go_on_in_an_old_run(straight: TrainResult, small_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(straight.folder, folder)
    pointer = folder / "checkpoints" / "latest.json"
    before = latest(pointer.parent)
    fewer = {**before.reader, "samples": before.reader["samples"] - 1}
    pointer.write_text(before.model_copy(update={"reader": fewer}).model_dump_json())
    with pytest.raises(ConfigError, match="does not fit"):
        launch(small_recipe, [f"output.folder={folder}"])
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["data"]["batch"] == 16


def test_zero_begins_with_the_same_losses_and_goes_on_where_it_was(
    straight: TrainResult, small_recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "zero"
    overrides = [f"output.folder={folder}", "engine.zero_stage=2", "output.checkpoint_every=30"]
    launch(small_recipe, overrides)
    whole = losses(folder)
    # Adam's first steps are the gradients' signs: soon the order of additions tells, but a wrong scale tells at once.
    for (_, loss), (_, expected) in zip(whole[:3], losses(Path(straight.folder))[:3], strict=True):
        assert loss == pytest.approx(expected, rel=1e-4)

    pointer = folder / "checkpoints" / "latest.json"
    before = latest(pointer.parent)
    half = before.model_copy(update={"step": 30, "reader": {**before.reader, "epoch": 15, "position": 0}})
    pointer.write_text(half.model_dump_json())
    assert launch(small_recipe, overrides).started_from == 30
    assert losses(folder) == whole
