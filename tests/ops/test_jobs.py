"""Commands as jobs of a real cluster: sent with their code, listed, followed, stopped, and their codes kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.settings import WorldSettings
from demo.world import make_world
from ops.jobs import chosen_variables
from sayso.code import code_hash
from sayso.errors import InputError
from tests.cluster import RayCluster, free_port

REPOSITORY = Path(__file__).resolve().parents[2]

Sayso = Callable[..., subprocess.CompletedProcess[str]]

_SECRET = "abc 'quoted' \\n $"
# Sends a script instead of a command of sayso, with all that goes along otherwise.
_SEND = """
import sys
from pathlib import Path
from ops import jobs
jobs._COMMAND = ("exec", "python3", "-P", "-c")
server = jobs.JobServer()
server.follow(server.submit(sys.argv[1:], Path.cwd(), jobs.chosen_variables(["SECRET"])), sys.stdout.write)
"""
# Says from inside a job what its driver and its workers have.
_TELL = r"""
import json, os, sys
import ray
from sayso.code import code_hash
import train

ray.init(logging_level="ERROR")

@ray.remote(num_cpus=1)
def worker():
    import train
    return [code_hash(), os.environ["SECRET"], train.__doc__, sorted(os.listdir())]

driver = [code_hash(), os.environ["SECRET"], train.__doc__, sorted(os.listdir())]
print("TOLD", json.dumps([driver, ray.get(worker.remote()), sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Its processes do not see this checkout: what jobs run must come with them."""
    with RayCluster([{"CPU": 2}], jobs=True, variables={"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory, with a file that is not to be sent."""
    here = tmp_path / "work dir"
    (here / "train").mkdir(parents=True)
    (here / "train" / "__init__.py").write_text("raise ImportError('not ours')\n")
    (here / "pipeline.yaml").write_text("engine: {commit_seconds: 0.5}\n")
    (here / ".gitignore").write_text("*.large\n")
    (here / "film.large").write_bytes(b"0" * 1000)
    return here


@pytest.fixture
def sayso(cluster: RayCluster, folder: Path) -> Sayso:
    """Runs `sayso ARGUMENTS` in the working directory, on the job server of the cluster."""

    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        assert cluster.job_address is not None
        environment = {
            **cluster.environment,
            "RAY_API_SERVER_ADDRESS": cluster.job_address,
            "PYTHONPATH": str(REPOSITORY),
            "NO_COLOR": "1",
            **variables,
        }
        command = [sys.executable, "-P", "-m", "ops", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)

    return run


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four short videos whose path needs quotes."""
    world = tmp_path_factory.mktemp("world") / "it's a world"
    world.mkdir()
    make_world(WorldSettings(seed=5, videos=4, min_duration=12, max_duration=14), world, workers=2)
    return world / "videos"


def _listed(sayso: Sayso, job_id: str) -> dict[str, Any]:
    jobs = json.loads(sayso("jobs", "--json").stdout)
    [job] = [each for each in jobs if each["id"] == job_id]
    found: dict[str, Any] = job
    return found


def test_a_run_as_a_job_makes_the_data_set_with_the_code_of_the_submitter(
    sayso: Sayso, videos: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    root = tmp_path / "a root"
    run = ("run", "--videos", videos, "--root", root, "--config", "pipeline.yaml", "--json")
    sent = sayso("submit", "--env", "SECRET", "--env", "OTHER=1 2", "--", *run, SECRET=_SECRET)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert re.search(r"job sayso-\d{8}-\d{6}-\w{4}$", sent.stderr.splitlines()[0])
    job_id = sent.stderr.splitlines()[0].split()[-1]

    status = json.loads(sayso("status", "--root", root, "--json").stdout)
    stages = {stage["name"]: stage for stage in status["stages"]}
    assert stages["fetch"]["done"] == 4
    assert stages["shard"]["done"] >= 1

    job = _listed(sayso, job_id)
    assert job["status"] == "succeeded"
    assert job["exit_code"] == 0
    assert job["seconds"] > 0
    assert job["code"] == code_hash()
    assert f"--root '{root}'" in job["command"]
    said = sayso("logs", job_id).stdout
    assert said in sent.stdout or sent.stdout in said
    assert '"stages"' in said
    for printed in (sent.stdout, sent.stderr, said, json.dumps(job)):
        assert _SECRET not in printed


def test_driver_and_workers_have_the_code_the_variables_and_the_files(
    sayso: Sayso, cluster: RayCluster, folder: Path
) -> None:
    import train

    environment = {**cluster.environment, "PYTHONPATH": str(REPOSITORY), "SECRET": _SECRET}
    assert cluster.job_address is not None
    environment["RAY_API_SERVER_ADDRESS"] = cluster.job_address
    arguments = ["a b", "it's", '"$HOME"', "*", "-x", "&& false"]
    send = [sys.executable, "-P", "-c", _SEND, _TELL, *arguments]
    sent = subprocess.run(send, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    [told] = [line for line in sent.stdout.splitlines() if line.startswith("TOLD ")]
    expected = [code_hash(), _SECRET, train.__doc__, [".gitignore", "pipeline.yaml", "train"]]
    assert json.loads(told.removeprefix("TOLD ")) == [expected, expected, arguments]


def test_a_job_that_fails_gives_its_own_code(sayso: Sayso, tmp_path: Path) -> None:
    usage = sayso("submit", "--id", "wrong.option", "--", "run", "--no-such-option")
    assert usage.returncode == 2
    assert "No such option" in usage.stdout
    assert sayso("logs", "-f", "wrong.option").returncode == 2
    assert _listed(sayso, "wrong.option")["exit_code"] == 2
    assert sayso("logs", "wrong.option").returncode == 0

    broken = tmp_path / "videos"
    broken.mkdir()
    (broken / "broken.mp4").write_bytes(b"no video")
    failed = sayso("submit", "run", "--videos", broken, "--root", tmp_path / "root")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "some rows failed" in failed.stdout

    again = sayso("submit", "--id", "wrong.option", "--", "doctor")
    assert again.returncode == 2
    assert "there is such a job already" in again.stderr


def test_a_stopped_job_ends_in_order(sayso: Sayso, cluster: RayCluster, videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    slow = ("fetch.profile.fps=60", "fetch.profile.preset=placebo", "fetch.profile.crf=1")
    assert sayso("discover", "--videos", videos, "--root", root).returncode == 0
    sent = sayso("submit", "--no-wait", "--", "fetch", "--root", root, *slow)
    assert sent.returncode == 0, sent.stderr
    job_id = sent.stdout.strip()
    deadline = time.monotonic() + 60
    while not cluster.nodes[0].runs("ffmpeg"):
        assert time.monotonic() < deadline, sayso("logs", job_id).stdout
        time.sleep(0.2)
    assert _listed(sayso, job_id)["status"] == "running"
    assert sayso("stop", job_id).stdout.strip() == f"{job_id} stopped"
    assert "sayso: stopped; what was done is kept" in sayso("logs", job_id).stdout
    assert _listed(sayso, job_id)["exit_code"] == 130
    assert sayso("logs", "-f", job_id).returncode == 130
    assert sayso("stop", job_id).stdout.strip() == f"{job_id} stopped"


def test_what_cannot_be_sent_is_refused_in_one_line(sayso: Sayso, folder: Path, tmp_path: Path) -> None:
    assert "lost with the job's working directory" in _refused(sayso("submit", "--", "run", "--root", "data"))
    assert "no such folder" in _refused(sayso("submit", "--working-dir", "nowhere", "--", "doctor"))
    assert "--env UNSET: not set here" in _refused(sayso("submit", "--env", "UNSET", "--", "doctor"))
    assert "no such job" in _refused(sayso("logs", "sayso-none"))
    assert "no such job" in _refused(sayso("stop", "sayso-none"))
    with (folder / "film.mp4").open("wb") as film:
        film.truncate(101 * 2**20)
    assert "101 MiB, at most 100 MiB can be sent" in _refused(sayso("submit", "--", "doctor"))


def test_a_job_server_that_does_not_answer_or_refuses_us_is_named(sayso: Sayso, tmp_path: Path) -> None:
    assert "no job server answers" in _refused(sayso("jobs", "--address", f"http://127.0.0.1:{free_port()}"))
    assert "not the URL of a job server" in _refused(sayso("jobs", "--address", "127.0.0.1:6379"))
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    assert "refuses our token" in _refused(sayso("jobs", RAY_AUTH_TOKEN_PATH=str(wrong)))
    assert "refuses our token" in _refused(sayso("jobs", RAY_AUTH_MODE="disabled"))
    assert "refuses our token" in _refused(sayso("jobs", RAY_AUTH_TOKEN_PATH=str(tmp_path / "missing")))


def _refused(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def test_variables_are_chosen_as_docker_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "eu = west")
    assert chosen_variables(["REGION", "EMPTY=", "A=b=c"]) == {"REGION": "eu = west", "EMPTY": "", "A": "b=c"}
    for wrong in ("", "=1", "1A", "A B=1", "A=$HOME", "A=x${HOME}"):
        with pytest.raises(InputError):
            chosen_variables([wrong])
