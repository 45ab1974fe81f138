"""The ranks of one machine under the real launcher, which are stood in for by processes that only wait."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import train.node
from sayso.errors import ConfigError
from tests.ranks import REPOSITORY
from train.node import Node, devices
from train.recipe import load_recipe

SOON = 120.0


def wait_like_a_rank(folder: Path) -> None:
    """Wait for another rank for ever, as in a collective of NCCL, and heed the launcher as ranks do."""
    from train.worker import heed_launcher

    heed_launcher(threading.Event())
    (folder / os.environ["RANK"]).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def started(node: Node, folder: Path) -> list[psutil.Process]:
    """Start two ranks and wait until both are there."""
    for path in folder.iterdir():
        path.unlink()
    node.start([node.facts()], 0)
    deadline = time.monotonic() + SOON
    while not all((path := folder / str(rank)).exists() and path.read_text() for rank in range(2)):
        assert time.monotonic() < deadline
        assert node.poll() is None
        time.sleep(0.1)
    return [psutil.Process(int((folder / str(rank)).read_text())) for rank in range(2)]


def test_ranks_that_wait_for_one_that_is_gone_are_ended_soon(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = train.node.launcher_command
    monkeypatch.setattr("train.node.launcher_command", lambda *given: [*command(*given)[:-2], __name__, str(tmp_path)])
    monkeypatch.setattr("train.node.LEAVING", 2.0)
    node = Node(load_recipe(small_recipe))
    try:
        first, second = started(node, tmp_path)
        first.kill()
        began = time.monotonic()
        while (code := node.poll()) is None:
            assert time.monotonic() - began < 20, "the launcher alone takes 30 s a rank"
            time.sleep(0.1)
        assert code == 247  # what the launcher makes of SIGKILL
        assert not second.is_running()
        node.ask_to_leave()  # nobody is there to be asked
        node.end()

        again = started(node, tmp_path)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert node.poll() is None, "nothing is wrong with those that are there now"
            time.sleep(0.1)
        assert all(rank.is_running() for rank in again)
    finally:
        node.end()


def test_a_rank_with_a_traceback_is_gone_at_once(tmp_path: Path) -> None:
    """Whatever it is doing beside, such as decoding clips that were to come."""
    beside = tmp_path / "sitecustomize.py"  # what Python runs first of all
    beside.write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    command = [sys.executable, "-m", "train.worker"]  # without a recipe, a bug of whoever starts it
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "IndexError" in ended.stderr


def test_ranks_get_the_devices_that_were_lent_and_no_others(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(small_recipe, ["engine.device=cuda"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(recipe) == (0, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 3,1")
    assert devices(recipe) == (5, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,GPU-d72c1d46")
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES=GPU-8932f937,GPU-d72c1d46: .*nvidia-smi -L"):
        devices(recipe)
    assert devices(load_recipe(small_recipe)) == (0, 1)  # on the CPU


if __name__ == "__main__":
    wait_like_a_rank(Path(sys.argv[1]))
