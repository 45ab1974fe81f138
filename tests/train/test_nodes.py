"""Runs on two machines of a real Ray cluster, whose ranks, launchers, drivers and machines are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.cluster import Node, RayCluster, free_port, living
from train.launch import TrainResult, launch
from train.metrics import read_metrics
from train.run import latest

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 24
SHORT = [f"schedule.steps={STEPS}", "evaluation.every=null", "output.checkpoint_every=2"]
TWO_NODES = ["engine.ranks=1", "--nodes", "2"]
ENDED_WITHIN = 60.0  # seconds in which all ranks must have ended after one of them, or its machine, was lost
SOON = 200.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster([{"CPU": 1}, {"CPU": 1}], jobs=True) as running:
        yield running


@pytest.fixture(scope="module")
def one_machine(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The run of these tests by two ranks of one machine, undisturbed."""
    return launch(small_recipe, [f"output.folder={tmp_path_factory.mktemp('one') / 'run'}", *SHORT])


def sayso(cluster: RayCluster, *arguments: str | Path) -> subprocess.Popen[str]:
    """Starts `sayso ARGUMENTS` on a machine of the cluster."""
    assert cluster.job_address
    environment = {**cluster.environment, "RAY_API_SERVER_ADDRESS": cluster.job_address, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-P", "-m", "ops", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SOON
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def training(nodes: Sequence[Node], what: str = "") -> list[psutil.Process]:
    """Launchers and ranks on nodes, those whose command line holds a word."""
    found = []
    for process in (process for node in nodes for process in node.processes()):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if ("train.worker" in line) and what in line:
            found.append(process)
    return found


def rank_on(node: Node) -> psutil.Process:
    [rank] = [each for each in training([node]) if "deepspeed" not in " ".join(each.cmdline())]
    return rank


def all_ended(processes: Sequence[psutil.Process], what: str) -> None:
    """Wait until none of these runs, and print how long it took."""
    began = time.monotonic()
    while any(living(process.pid) for process in processes):
        assert time.monotonic() - began < ENDED_WITHIN
        time.sleep(0.02)
    print(f"{what}: all {len(processes)} processes ended within {time.monotonic() - began:.2f} s")


def starts_of(folder: Path) -> list[int]:
    path = folder / "starts.jsonl"
    return [json.loads(line)["from_step"] for line in path.read_text().splitlines()] if path.exists() else []


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(folder / "metrics.jsonl")]


def test_a_job_on_two_machines_outlives_a_killed_rank_and_a_lost_machine(
    cluster: RayCluster, one_machine: TrainResult, small_recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = ["train", small_recipe, f"output.folder={folder}", *SHORT, *TWO_NODES]
    job = sayso(cluster, "submit", "--id", "two-nodes", "--", *command)
    wait_for(lambda: latest(folder / "checkpoints").step >= 4, job)
    everything = training(cluster.nodes)
    assert len(everything) == 6, "a launcher of two processes and a rank on each"
    rank_on(cluster.nodes[1]).kill()
    all_ended(everything, "kill -9 of a rank")

    wait_for(lambda: len(starts_of(folder)) == 2, job)
    again = starts_of(folder)[1]
    wait_for(lambda: latest(folder / "checkpoints").step > again, job)
    everything = training(cluster.nodes)
    cluster.nodes[1].raylet().kill()
    all_ended(everything, "kill -9 of a raylet")
    cluster.add_node({"CPU": 1})

    said, _ = job.communicate(timeout=SOON)
    print(said)
    assert job.returncode == 0, said
    assert losses(folder) == losses(Path(one_machine.folder))
    assert [step for step in starts_of(folder) if step] == sorted(set(starts_of(folder)))[1:]
    assert "training was cut short: node 1 (" in said
    assert "going on from the last checkpoint, restart 2 of 3" in said
    assert f"train {STEPS}/{STEPS} loss" in said
    assert not training(cluster.nodes)
