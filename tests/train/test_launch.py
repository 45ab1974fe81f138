"""Real runs under the DeepSpeed launcher. Each costs seconds, so they are few and each shows several things."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sayso.code import code_hash
from sayso.errors import ConfigError, InputError, WorkFailed
from train.launch import TrainResult, launch
from train.metrics import read_metrics
from train.run import latest, latest_model
from train.weights import load_model

SAYSO_TRAIN = "import sys; from ops.cli import main; sys.argv.insert(1, 'train'); main()"
SOON = 240.0


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
    process = subprocess.Popen([sys.executable, "-c", SAYSO_TRAIN, str(recipe), f"output.folder={folder}"])
    wait_for(lambda: latest(folder / "checkpoints").step > after, "no checkpoint came")
    process.send_signal(number)
    code = process.wait(timeout=SOON)
    wait_for(lambda: not processes_of(folder), "processes were left behind")
    return code


def start_and_preempt(recipe: Path, folder: Path, overrides: list[str], *, after: int) -> int:
    """Start a run and send SIGTERM to all its processes, as a machine does that shuts down; its exit code."""
    command = [sys.executable, "-c", SAYSO_TRAIN, str(recipe), f"output.folder={folder}", *overrides]
    starts = len(starts_of(folder))
    process = subprocess.Popen(command)
    wait_for(lambda: len(starts_of(folder)) > starts, "no start came")
    wait_for(lambda: read_metrics(folder / "metrics.jsonl")[-1]["step"] > after, "no step came")
    started = psutil.Process(process.pid)
    everything = [started, *started.children(recursive=True)]
    # Towards the end of an epoch a rank has a loader more, for the next one.
    assert len(everything) >= 7, "who started it, a launcher of two processes, two ranks and a loader of each"
    for each in everything:
        each.terminate()
    code = process.wait(timeout=SOON)
    wait_for(lambda: not processes_of(folder), "processes were left behind")
    return code


def starts_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "starts.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(folder / "metrics.jsonl")]


def held_out(folder: Path) -> dict[float, float]:
    """Losses of the averaged weights on held-out clips."""
    return {line["step"]: line["val_loss"] for line in read_metrics(folder / "metrics.jsonl") if "val_loss" in line}


def test_a_run_learns_and_leaves_what_others_need(straight: TrainResult) -> None:
    folder = Path(straight.folder)
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 61))
    # Means of many steps: a single batch's loss depends on which of the six colours it has twice.
    assert mean(line["loss"] for line in lines[-20:]) < 0.85 * mean(line["loss"] for line in lines[:5])
    assert all(line["samples_per_second"] > 0 and 0 <= line["data_wait"] <= 1 for line in lines)
    assert all(line["gradient_norm"] > 0 and line["tflops"] > 0 and 0 < line["mfu"] < 2 for line in lines)
    assert lines[0]["lr"] == pytest.approx(lines[3]["lr"] / 4)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "latest.json",
        "step-00000057",
        "step-00000060",
    ]
    trained = load_model(Path(straight.model))
    assert trained.card.step == 60
    assert "red" in trained.vocabulary.words

    assert list(held_out(folder)) == [20, 40, 60]
    assert held_out(folder)[60] < held_out(folder)[20]
    (start,) = starts_of(folder)
    assert (start["from_step"], start["total_steps"], start["ranks"]) == (0, 60, 2)
    assert start["code"]["sha256"] == code_hash()
    assert start["peak"]["source"] == "matmul"
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (line["step"], pytest.approx(line["loss"])) for line in lines
    ]


def test_what_is_saved_is_the_average_of_the_weights(straight: TrainResult) -> None:
    folder = Path(straight.model)
    average = torch.load(folder / "ema.pt", weights_only=True)
    trained = load_model(folder).model
    weights = [weight for weight in trained.parameters() if weight.requires_grad]
    parts = [torch.load(folder / f"state-{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(parts)  # each rank writes some
    last = {name: values["weight"] for part in parts for name, values in part.items()}
    assert len(average) == len(weights)
    for saved, weight in zip(average, weights, strict=True):
        torch.testing.assert_close(saved, weight.detach(), rtol=0, atol=0)
    assert any(not torch.equal(value, last[f"model.{name}"]) for name, value in trained.named_parameters())


def test_a_finished_run_started_again_says_so_and_ends(
    straight: TrainResult, small_recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = launch(small_recipe)
    assert "already trained, 60 of 60 steps" in capfd.readouterr().err
    assert (again.started_from, again.loss) == (60, straight.loss)
    assert again.seconds < 2


def test_a_run_killed_interrupted_and_preempted_goes_on_with_the_same_losses(
    straight: TrainResult, small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "broken"
    assert start_and_stop(small_recipe, folder, signal.SIGKILL, after=0) == -signal.SIGKILL
    killed_at = latest(folder / "checkpoints").step
    assert 3 <= killed_at < 60
    half_written = folder / "checkpoints" / "step-00000059"  # as a kill while writing leaves it
    half_written.mkdir(exist_ok=True)
    (half_written / "model.pt").write_bytes(b"half")

    assert start_and_stop(small_recipe, folder, signal.SIGINT, after=killed_at) == 130
    interrupted_at = latest(folder / "checkpoints").step
    assert killed_at < interrupted_at < 60
    assert not half_written.exists()
    said = capfd.readouterr().err
    assert f"going on after step {killed_at} of 60" in said
    assert "training was stopped by SIGINT; the same command goes on from the last checkpoint" in said

    # Whatever checkpoint comes is SIGTERM's.
    overrides = ["output.checkpoint_every=1000", "data.workers=1"]
    assert start_and_preempt(small_recipe, folder, overrides, after=interrupted_at) == 75
    preempted_at = latest(folder / "checkpoints").step
    assert interrupted_at < preempted_at < 60
    assert [step for step, _ in losses(folder)] == list(range(1, preempted_at + 1))
    assert "training was stopped by SIGTERM; the same command goes on" in capfd.readouterr().err

    finished = launch(small_recipe, [f"output.folder={folder}"])
    assert finished.started_from == preempted_at
    assert losses(folder) == losses(Path(straight.folder))
    assert held_out(folder) == held_out(Path(straight.folder))
    assert [start["from_step"] for start in starts_of(folder)] == [0, killed_at, interrupted_at, preempted_at]


def test_sigterm_before_the_ranks_are_there_means_the_same(small_recipe: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a mirror that does not answer holds the start up
        silent.settimeout(SOON)
        mirror = f"output.mirror=http://127.0.0.1:{silent.getsockname()[1]}/run"
        command = [sys.executable, "-c", SAYSO_TRAIN, str(small_recipe), f"output.folder={tmp_path / 'run'}", mirror]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=SOON)
    assert process.returncode == 75
    assert "stopped by SIGTERM before it began; the same command goes on" in said


def test_sigterm_while_the_command_is_starting_means_the_same(small_recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAYSO_TRAIN, str(small_recipe), f"output.folder={tmp_path / 'run'}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: catches(process.pid, signal.SIGTERM), "SIGTERM was never caught")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=SOON)
    assert process.returncode == 75, said
    assert "stopped by SIGTERM before it began; the same command goes on" in said


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process handles a signal itself."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [mask] = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_checkpoint_that_holds_code_is_refused_and_the_code_not_run(
    straight: TrainResult, small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, mark = tmp_path / "foreign", tmp_path / "mark"
    shutil.copytree(straight.folder, folder)

    class Code:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(mark),)

    newest = folder / "checkpoints" / "step-00000060"
    for name in ("state-1.pt", "model.pt"):
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
    overrides = [
        f"output.folder={folder}",
        "engine.zero_stage=3",
        "engine.checkpoint_activations=true",
        "optimiser.ema=null",
        "schedule={steps: 8, warmup_steps: 4, name: constant}",
        "output.checkpoint_every=4",
    ]
    launch(small_recipe, overrides)
    whole = losses(folder)
    # Adam's first steps are the gradients' signs: soon the order of additions tells, but a wrong scale tells at once.
    for (_, loss), (_, expected) in zip(whole[:3], losses(Path(straight.folder))[:3], strict=True):
        assert loss == pytest.approx(expected, rel=1e-4)

    pointer = folder / "checkpoints" / "latest.json"
    before = latest(pointer.parent)
    half = before.model_copy(update={"step": 4, "reader": {**before.reader, "epoch": 2, "position": 0}})
    pointer.write_text(half.model_dump_json())
    assert launch(small_recipe, overrides).started_from == 4
    assert losses(folder) == whole
    trained = load_model(latest_model(folder))  # all weights, though each rank held a part of them
    assert {name: value.shape for name, value in trained.model.state_dict().items()} == {
        name: value.shape for name, value in load_model(Path(straight.model)).model.state_dict().items()
    }
    fewer = ["engine.ranks=1", "engine.zero_stage=1", "schedule.steps=10"]
    assert launch(small_recipe, [*overrides, *fewer]).started_from == 8
    assert losses(folder)[:8] == whole
    assert all(0 < loss < 2 * whole[0][1] for _, loss in losses(folder)[8:])


def test_a_step_that_gives_no_number_ends_the_run_and_names_its_samples(
    straight: TrainResult, small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nan"
    overrides = [f"output.folder={folder}", "optimiser.lr=1e30", "data.accumulate=2", "output.checkpoint_every=1"]
    with pytest.raises(WorkFailed, match="ended with code 70"):  # it is not tried again
        launch(small_recipe, overrides)
    lines = losses(folder)
    bad = len(lines) + 1
    report = json.loads((folder / f"nan-step-{bad}.json").read_text())
    assert report["step"] == bad
    assert report["last_losses"] == [loss for _, loss in lines]
    assert [(part["rank"], part["micro_batch"]) for part in report["batch"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({key for part in report["batch"] for key in part["keys"]}) == 16
    assert latest(folder / "checkpoints").step == bad - 1
    said = capfd.readouterr().err
    assert said.count(f"step {bad}: the ") == 1
    assert f"nan-step-{bad}.json names the samples of its batch" in said
    state = load_model(latest_model(folder)).model.state_dict()
    assert all(value.isfinite().all() for value in state.values())


def test_a_full_disk_ends_the_run_with_one_line(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "starts.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(WorkFailed, match="ended with code 70"):  # it is not tried again
        launch(small_recipe, [f"output.folder={folder}", "engine.ranks=1"])
    said = capfd.readouterr().err
    assert f"rank 0: no space left on {folder}: free some and run the same command again" in said
    assert "Traceback" not in said


def test_a_run_goes_on_with_another_number_of_ranks(straight: TrainResult, small_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fewer"
    shutil.copytree(straight.folder, folder)
    with (folder / "starts.jsonl").open("a") as file:
        file.write('{"started": "20')  # cut by a full disk
    overrides = ["schedule.steps=63", "schedule.name=linear", "engine.ranks=1"]
    gone_on = launch(small_recipe, [f"output.folder={folder}", *overrides])
    assert [start["from_step"] for start in starts_of(folder)] == [0, 60]
    assert (gone_on.started_from, gone_on.steps) == (60, 63)
    assert losses(folder)[:60] == losses(Path(straight.folder))
    assert all(0 < loss < 2 * losses(folder)[0][1] for _, loss in losses(folder)[60:])
