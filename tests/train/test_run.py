"""The folder of a run: what is settled in it before the ranks start, and which checkpoints stay."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
import torch

from sayso.errors import InputError, NoSpace, RootBusy
from train.checkpoint import remove_others
from train.hold import Hold
from train.node import Node
from train.recipe import load_recipe
from train.run import prepare
from train.vocabulary import Vocabulary
from train.weights import save_tensors

FULL = Path("/dev/full")
"""A disk without any room."""


def test_what_a_start_settles_is_there_whole_or_not_at_all(small_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(small_recipe, [f"output.folder={tmp_path / 'run'}", "engine.ranks=1"])
    folder = recipe.output.folder
    folder.mkdir()
    partial = folder / "vocabulary.json.partial"
    partial.symlink_to(FULL)
    with pytest.raises(NoSpace, match=f"no space left on {folder}: free some and run the same command again"):
        prepare(recipe)
    assert not (folder / "vocabulary.json").exists()
    partial.unlink()
    assert prepare(recipe).start == 0
    assert "red" in Vocabulary.load(folder / "vocabulary.json").words

    before = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml.partial").symlink_to(FULL)
    with pytest.raises(NoSpace):
        prepare(recipe)
    assert (folder / "recipe.yaml").read_text() == before


def test_a_folder_takes_one_run_at_a_time(small_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(small_recipe, [f"output.folder={tmp_path / 'run'}"])
    first, second = Node(recipe), Node(recipe)
    first.prepare()
    first.prepare()  # as at a restart
    with pytest.raises(RootBusy, match=rf"run: process {os.getpid()} on {socket.gethostname()} trains there; wait"):
        second.prepare()
    first.end()
    second.prepare()
    second.end()


def test_the_lock_of_a_machine_that_may_be_lost_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, patient, here = Hold(tmp_path), Hold(tmp_path, patient=True), Hold(tmp_path)
    for other in (patient, here):
        first.take()
        (tmp_path / ".lock").write_text("process 1 on another-machine")
        threading.Timer(0.3, first.let_go).start()
        other.take()
        assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
        other.let_go()
    first.take()
    monkeypatch.setattr("train.hold.LOST_WITHIN", 1.0)
    with pytest.raises(RootBusy):
        patient.take()
    first.let_go()


def test_a_folder_that_cannot_be_made_is_named(small_recipe: Path) -> None:
    with pytest.raises(InputError, match=r"output\.folder /dev/null/run cannot be written to \(Not a directory\)"):
        Node(load_recipe(small_recipe, ["output.folder=/dev/null/run"])).prepare()


def test_a_full_disk_is_an_error_of_the_system_for_tensors_too() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        save_tensors({"weight": torch.zeros(100_000)}, FULL)


def test_a_checkpoint_that_was_never_whole_is_not_among_those_that_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        (tmp_path / f"step-{step:08d}").mkdir()
    (tmp_path / "step-00000020.tar").touch()  # somebody's own
    (tmp_path / "step-00000020-best").mkdir()
    remove_others(tmp_path, 40, before=20, keep=2)  # killed in the middle of 30 and, in an earlier life, of 50
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["step-00000020", "step-00000020-best", "step-00000020.tar", "step-00000040"]
