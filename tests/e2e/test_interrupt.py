"""Stopping `sayso run` at any time and starting it again ends with what an undisturbed run makes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

SAYSO = Path(sys.executable).with_name("sayso")
SEED = int(os.environ.get("SAYSO_CHAOS_SEED", "7"))


def stop_at(process: subprocess.Popen[str], seconds: float, number: signal.Signals) -> int:
    """Send a signal some seconds after the first sign of life, as a terminal does to the whole group; the exit code."""
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_a_stopped_run_goes_on_to_the_same_result(
    number: signal.Signals,
    start: Callable[..., subprocess.Popen[str]],
    sayso: Callable[..., Any],
    small_videos: Path,
    undisturbed: Path,
    contents_of: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    moments = random.Random(f"{SEED}/{number}")
    codes = []
    for _ in range(3):
        seconds = moments.uniform(0.0, 10.0)
        codes.append(stop_at(start("run", "--videos", small_videos, "--root", root), seconds, number))
    ran = sayso("run", "--videos", small_videos, "--root", root)
    assert ran.code == 0, f"seed {SEED}: {ran.err}"
    assert contents_of(root) == contents_of(undisturbed), f"seed {SEED}"
    verified = sayso("verify", "--root", root, "--json")
    assert verified.code == 0, verified.out
    if number == signal.SIGINT:
        assert set(codes) <= {0, 130}, f"seed {SEED}: codes {codes} after Ctrl-C"


def test_ctrl_c_says_how_to_go_on_and_leaves_no_process(
    start: Callable[..., subprocess.Popen[str]], small_videos: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    process = start("run", "--videos", small_videos, "--root", root)
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("fetch:"):
        assert line, "the run ended before it was stopped"
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from here" in printed
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, f"still running: {alive}"


def test_a_killed_worker_spoils_no_data_on_stdout(small_videos: Path, tmp_path: Path) -> None:
    command = [str(SAYSO), "run", "--videos", str(small_videos), "--root", str(tmp_path / "root"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not (workers := [each for each in psutil.Process(running.pid).children(recursive=True) if at_work(each)]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers[0].kill()
        printed, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    assert "(raylet)" in errors, "Ray did not tell of the death"
    assert {stage["pending"] for stage in json.loads(printed)["stages"]} == {0}


def at_work(process: psutil.Process) -> bool:
    """Whether a process is a worker with a batch."""
    try:
        return "Worker.work" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_at_the_very_end_keeps_the_exit_code(
    start: Callable[..., subprocess.Popen[str]], small_videos: Path, undisturbed: Path
) -> None:
    """Nothing is left to do here, so the signal falls into the last moments of the command or just before them."""
    for tenth in range(8):
        code = stop_at(start("run", "--videos", small_videos, "--root", undisturbed), 0.05 * tenth, signal.SIGINT)
        assert code in (0, 130)
