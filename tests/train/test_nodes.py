"""Runs on two machines of a real Ray cluster, whose ranks, launchers, drivers and machines are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from sayso.errors import ConfigError, Crashed, Preempted, Stopped, StorageError, WorkFailed
from tests.cluster import Node, RayCluster, living
from train.distributed import GAVE_UP, RESUME
from train.launch import Here, TrainResult, judge, launch, run_on
from train.metrics import read_metrics
from train.node import LOST, Reached
from train.recipe import load_recipe
from train.run import Plan, latest
from train.weights import load_model

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 24
SHORT = [f"schedule.steps={STEPS}", "evaluation.every=null", "output.checkpoint_every=2"]
TWO_NODES = ["engine.ranks=1", "--nodes", "2"]
ENDED_WITHIN = 60.0  # seconds in which all ranks must have ended after one of them, or its machine, was lost
SOON = 200.0
pytestmark = pytest.mark.timeout(600)  # ranks are started ten times


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
        if "train.worker" in line and what in line:
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
    took = time.monotonic() - began
    print(f"{what}: all {len(processes)} processes ended within {took:.2f} s")  # noqa: T201  # to be seen with -s


def starts_of(folder: Path) -> list[int]:
    path = folder / "starts.jsonl"
    return [json.loads(line)["from_step"] for line in path.read_text().splitlines()] if path.exists() else []


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(folder / "metrics.jsonl")]


def test_a_job_on_two_machines_outlives_a_killed_rank_and_a_lost_machine(
    cluster: RayCluster, one_machine: TrainResult, small_recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command: list[str | Path] = ["train", small_recipe, f"output.folder={folder}", *SHORT, *TWO_NODES]
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
    rank_on(cluster.nodes[0]).suspend()  # or a quick machine would be done before the loss is felt
    cluster.nodes[1].raylet().kill()  # and nothing else: what it has started must end by itself
    all_ended(everything, "kill -9 of a raylet")
    cluster.add_node({"CPU": 1})

    said, _ = job.communicate(timeout=SOON)
    assert job.returncode == 0, said
    assert losses(folder) == losses(Path(one_machine.folder))
    begun = starts_of(folder)
    assert begun == sorted(set(begun))
    assert len(begun) == 3
    assert re.search(r"^training was cut short: node [01] \(.+\) ended with code \d+; going on", said, re.MULTILINE)
    assert re.search(
        r"^training was cut short: node [01] \(.+\) was lost; going on .* restart 2 of 3$", said, re.MULTILINE
    )
    assert f"going on after step {begun[2]} of {STEPS}" in said
    assert f"\ntrain {STEPS}/{STEPS} loss" in said, "what rank 0 says"
    assert not training(cluster.nodes)


def test_machines_with_folders_of_their_own_go_on_from_the_mirror(
    cluster: RayCluster,
    one_machine: TrainResult,
    small_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a killed driver and a SIGTERM, and then from the mirror alone."""
    # Another folder for each node: Ray's workers are where their raylet was started.
    command: list[str | Path] = ["train", small_recipe, "output.folder=/proc/self/cwd/run", *SHORT, *TWO_NODES]
    refused = sayso(cluster, *command)
    said, _ = refused.communicate(timeout=SOON)
    assert refused.returncode == 2, said
    assert re.search(r"is not the same folder on node 0 \(.+\) and node 1 .*output\.mirror=URL", said)

    mirror = tmp_path / "mirror"
    command.append(f"output.mirror={mirror}")
    killed = sayso(cluster, *command)
    wait_for(lambda: latest(mirror / "checkpoints").step > 0, killed)
    everything = training(cluster.nodes)
    killed.kill()
    all_ended(everything, "kill -9 of the driver")
    killed.communicate(timeout=SOON)

    preempted = sayso(cluster, *command, "output.checkpoint_every=1000")  # whatever checkpoint comes is SIGTERM's
    before = latest(mirror / "checkpoints").step
    wait_for(lambda: bool(training(cluster.nodes)), preempted)
    wait_for(lambda: any(starts_of(here)[1:] for here in own_folders(cluster)), preempted)
    preempted.send_signal(signal.SIGTERM)
    said, _ = preempted.communicate(timeout=SOON)
    assert preempted.returncode == 75, said
    assert "stopped by SIGTERM; the same command goes on" in said
    assert before < latest(mirror / "checkpoints").step < STEPS
    assert not training(cluster.nodes)

    for here in own_folders(cluster):
        assert len(list((here / "checkpoints").glob("step-*"))) <= 2, "each machine keeps its folder small"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    finished = sayso(cluster, "train", small_recipe, f"output.folder={mirror.as_uri()}", *SHORT, *TWO_NODES)
    said, _ = finished.communicate(timeout=SOON)
    assert finished.returncode == 0, said
    assert re.search(rf"going on after step \d+ of {STEPS}", said)
    assert f"model: {mirror.as_uri()}/checkpoints/step-{STEPS:08d}" in said
    assert losses(mirror) == losses(Path(one_machine.folder))
    assert load_model(mirror / "checkpoints" / f"step-{STEPS:08d}").card.step == STEPS


def test_on_one_machine_ranks_are_started_again_as_often_as_may_be(
    one_machine: TrainResult, small_recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-P", "-m", "ops", "train", str(small_recipe), f"output.folder={folder}", *SHORT]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [*command, "--restarts", "1"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        wait_for(lambda: latest(folder / "checkpoints").step > 0, run)
        first = psutil.Process(run.pid).children(recursive=True)
        [launcher] = [each for each in first if "deepspeed.launcher.launch" in each.cmdline()]
        launcher.kill()  # the runner above it then ends with code 0, as if all had gone well
        all_ended(first, "kill -9 of the launcher")

        wait_for(lambda: len(starts_of(folder)) == 2, run)
        second = psutil.Process(run.pid).children(recursive=True)
        next(each for each in second if "deepspeed" not in " ".join(each.cmdline())).kill()
        said, _ = run.communicate(timeout=SOON)
    assert run.returncode == 1, said
    assert not any(living(process.pid) for process in second)
    assert re.search(rf"^the ranks ended after step \d+ of {STEPS} .* restart 1 of 1$", said, re.MULTILINE)
    assert re.search(
        r"^training was cut short: this machine ended with code 247; no restart is left$", said, re.MULTILINE
    )
    assert "sayso: training crashed 2 times (engine.restarts 1); what the ranks said stands above" in said
    found = losses(folder)
    assert found == losses(Path(one_machine.folder))[: len(found)]


class Somewhere(Here):
    """Two machines of which nothing is needed but their names."""

    names = ("node 0", "node 1")

    def __init__(self, *, elsewhere: bool) -> None:
        self.elsewhere = elsewhere


class Unlucky(Somewhere):
    """Machines whose preparation fails in these ways, one after the other, and then finds that all is done."""

    def __init__(self, failures: list[WorkFailed]) -> None:
        super().__init__(elsewhere=False)
        self.failures = failures

    def prepare(self) -> Plan:
        if self.failures:
            raise self.failures.pop(0)
        return Plan(start=5, total=5, clips=1)

    def reached(self) -> Reached:
        return Reached(step=5, model="model", loss=1.0)

    def release(self) -> None:
        pass


def test_a_store_that_is_away_for_longer_costs_restarts_but_not_the_run(
    small_recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(small_recipe)
    away = StorageError("s3://bucket/run: no answer")
    assert run_on(Unlucky([Crashed("a rank was lost"), away]), recipe).steps == 5
    assert "s3://bucket/run: no answer; going on from the last checkpoint, restart 2 of 3" in capfd.readouterr().err
    with pytest.raises(StorageError):
        run_on(Unlucky([away]), recipe)
    with pytest.raises(WorkFailed, match="training crashed 4 times"):
        run_on(Unlucky([Crashed("a rank was lost"), away, away, away]), recipe)


@pytest.mark.parametrize(
    ("codes", "caught", "elsewhere", "error", "message"),
    [
        ([None, 247], [], True, Crashed, r"cut short: node 1 ended with code 247$"),
        ([LOST, None], [], True, Crashed, r"cut short: node 0 was lost$"),
        ([0, None], [], True, Crashed, r"cut short: node 0 ended long before the others$"),
        ([RESUME, RESUME], [], True, Crashed, r"cut short: node 0 was told to leave, node 1 was told to leave$"),
        ([RESUME, RESUME], [], False, Preempted, "stopped by SIGTERM"),
        ([RESUME, 1], [signal.SIGTERM], True, Preempted, "stopped by SIGTERM"),
        ([None, None], [signal.SIGINT], True, Stopped, "stopped by SIGINT"),
        ([None, 0], [signal.SIGTERM] * 2, True, Stopped, "stopped by SIGTERM"),
        ([None, GAVE_UP], [], True, WorkFailed, "ended with code 70"),
        ([LOST, 2], [], True, WorkFailed, "ended with code 2"),
    ],
)
def test_what_follows_from_how_ranks_end(
    codes: list[int | None], caught: list[int], elsewhere: bool, error: type[WorkFailed], message: str
) -> None:
    with pytest.raises(WorkFailed, match=message) as raised:
        judge(codes, caught, Somewhere(elsewhere=elsewhere))
    assert raised.type is error
    judge([0, 0], [signal.SIGTERM], Somewhere(elsewhere=elsewhere))


def test_without_a_cluster_several_machines_are_refused(small_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"engine\.nodes 2 needs a Ray cluster: send the command to one with"):
        launch(small_recipe, ["engine.nodes=2", "engine.ranks=1"])
    with pytest.raises(ConfigError, match=r"output\.folder run: with engine\.nodes give an absolute path"):
        launch(small_recipe, ["engine.nodes=2", "engine.ranks=1", "output.folder=run"])


def own_folders(cluster: RayCluster) -> list[Path]:
    return [cluster.folder / node.name / "run" for node in cluster.nodes]
