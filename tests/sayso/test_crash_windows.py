"""What is there after a kill -9 at each point of a run, and that the next run ends with what it should.

The processes that die are in tests/crashes.py; docs/reliability.md lists the windows.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest
from deltalake import DeltaTable

import sayso.s3
from sayso.engine.failures import newest_failures
from sayso.engine.inputs import open_failures
from sayso.root import Root
from sayso.rows import Failure, Media, Video
from sayso.storage import PARTIAL
from tests.cluster import RayCluster
from tests.conftest import REPOSITORY, S3, SAYSO
from tests.contents import content_hash
from tests.crashes import BUSY, PART_BYTES, TAKEOVER_SECONDS, Keep, work
from tests.faults import Fault, FaultyProxy, Rule
from tests.made import put
from tests.seaweed import client_environment

KILLED = -signal.SIGKILL
TITLES = ["", "skip", "", "no good", "", "", "large"]
Process: TypeAlias = subprocess.Popen[str]
KEPT = {"v0", "v2", "v4", "v5", "v6"}


def command(window: str, *what: str | Path) -> list[str]:
    return [sys.executable, "-m", "tests.crashes", window, *map(str, what)]


def crash(window: str, *what: str | Path, environment: Mapping[str, str] | None = None) -> int:
    """Let a process die in a window; its exit code."""
    ran = subprocess.run(
        command(window, *what), cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode <= 0, ran.stdout + ran.stderr
    return ran.returncode


def fill(root: Root, titles: list[str] = TITLES) -> Root:
    put(root, [Video(video_id=f"v{place}", url="u", title=title) for place, title in enumerate(titles)], "test")
    return root


def done(root: Root) -> set[str]:
    return set(root.table(Media).keys().to_pylist())


def stored(root: Root) -> set[str]:
    return {key.split("/")[1] for key in root.storage.list("media")}


def dropped(root: Root) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in open_failures(root, Keep(root)).to_pylist()}


def contents(root: Root) -> dict[str, Any]:
    """All that a run of the stage makes: rows, objects, and what was dropped."""
    objects = {key: hashlib.sha256(root.storage.read(key)).hexdigest() for key in root.storage.list("media")}
    return {**content_hash(root), **objects, "dropped": dropped(root)}


def leftovers(root: Root) -> dict[str, int]:
    """Files in a folder that nothing names: half objects, half log entries, rows' files, leases."""
    files = [path for path in Path(root.url).rglob("*") if path.is_file()]
    table = Path(root.url, "tables", "media")
    named = {Path(uri).name for uri in DeltaTable(str(table)).file_uris()} if table.exists() else set()
    found = {
        "partial": sum(PARTIAL in path.name for path in files),
        "log": sum(path.parent.name == "_delta_log" and "#" in path.name for path in files),
        "unnamed": sum(path.parent == table and path.name not in named for path in files),
        "lease": sum(path.parent.name == "leases" and PARTIAL not in path.name for path in files),
    }
    return {what: number for what, number in found.items() if number}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The contents of a root that nobody disturbed."""
    root = fill(Root(str(tmp_path_factory.mktemp("undisturbed") / "root")).create())
    work(Keep(root))
    assert (done(root), stored(root)) == (KEPT, KEPT)
    assert dropped(root) == {"v1": "no_speech", "v3": "http_404"}
    assert leftovers(root) == {}
    return contents(root)


@dataclass(frozen=True)
class Left:
    """What a killed process leaves: rows, objects, what was noted as dropped, and files that nothing names."""

    rows: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    files: dict[str, int] = field(default_factory=dict)


# The stage commits every three rows. The first commit holds v0, v1 and v2, the second v3, v4 and v5.
FIRST, SECOND = {"v0", "v2"}, {"v0", "v2", "v4", "v5"}
LEFT = {
    "before the object": Left(),
    "half of the object": Left(files={"partial": 1}),
    "object written and not in its place": Left(files={"partial": 1}),
    "object in place": Left(objects={"v0"}),
    "before the results": Left(FIRST, SECOND, {"v1"}),
    "in the log entry": Left(FIRST, SECOND, {"v1"}, {"log": 1, "unnamed": 1}),
    "between results and failures": Left(SECOND, SECOND, {"v1"}),
    "after both": Left(FIRST, FIRST, {"v1"}),
    "before the lease": Left(),
    "half of the lease": Left(files={"partial": 1}),
    "after the lease": Left(),
}
_NO_LEASE = {"before the lease", "half of the lease"}


def check_left(root: Root, left: Left) -> None:
    assert (done(root), stored(root), set(dropped(root))) == (left.rows, left.objects, left.dropped)


@pytest.mark.parametrize("window", LEFT)
def test_a_killed_run_is_gone_on_with(window: str, root: Root, undisturbed: dict[str, Any]) -> None:
    fill(root)
    expected = -signal.SIGXFSZ if window == "in the log entry" else KILLED
    assert crash(window, "keep", root.url) == expected
    left = LEFT[window]
    check_left(root, left)
    assert leftovers(root) == left.files | ({} if window in _NO_LEASE else {"lease": 1})
    work(Keep(root))
    assert contents(root) == undisturbed
    assert leftovers(root) == left.files, "half objects and files without use stay, the dead run's lease does not"
    version = root.table(Media).version()
    work(Keep(root))
    assert root.table(Media).version() == version, "something was left to do"


LEFT_ON_S3 = {
    "before the object": Left(),
    "between the parts": Left(SECOND, SECOND, {"v1", "v3"}),
    "parts there and not put together": Left(SECOND, SECOND, {"v1", "v3"}),
    "object in place": Left(objects={"v0"}),
    "before the results": LEFT["before the results"],
    "between results and failures": LEFT["between results and failures"],
}
_IN_PARTS = {"between the parts", "parts there and not put together"}


def uploads(s3: S3, root: Root) -> int:
    """Uploads in parts under a root that nobody completed or aborted."""
    prefix = root.storage.base.partition("/")[2]
    found = s3.server.client().list_multipart_uploads("sayso")
    return sum(str(each["Key"]).lstrip("/").startswith(prefix) for each in found)


@pytest.mark.parametrize("window", LEFT_ON_S3)
def test_a_killed_run_on_s3_is_gone_on_with(
    window: str, s3: S3, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(Root(s3.url("window")).create())
    assert crash(window, "keep", root.url) == KILLED
    check_left(root, LEFT_ON_S3[window])
    assert uploads(s3, root) == (1 if window in _IN_PARTS else 0)
    monkeypatch.setattr(sayso.s3, "_PART_BYTES", PART_BYTES)
    work(Keep(root))
    assert contents(root) == undisturbed
    assert uploads(s3, root) == 0


@pytest.mark.parametrize(
    ("fault", "rows"), [("hold", FIRST), ("delay", SECOND)], ids=["entry is not there", "only its answer is not"]
)
def test_killed_while_a_log_entry_is_on_its_way_to_s3(
    fault: Fault, rows: set[str], s3: S3, undisturbed: dict[str, Any]
) -> None:
    root = fill(Root(s3.url("entry")).create())
    with FaultyProxy(s3.server.endpoint, delay=600) as proxy:
        proxy.script(Rule(fault, method="PUT", target=f"media/_delta_log/{2:020}.json"))
        environment = {**os.environ, **client_environment(proxy.endpoint)}
        with begun(command("never", "keep", root.url), environment) as process:
            wait_until(lambda: proxy.made[fault] == 1, "the second commit did not come")
            wait_until(lambda: done(root) == rows, "the entry did not arrive")
            process.kill()
            assert ended(process)[0] == KILLED
    check_left(root, Left(rows, SECOND, {"v1"}))
    work(Keep(root))
    assert contents(root) == undisturbed


@contextmanager
def begun(what: list[str], environment: Mapping[str, str]) -> Iterator[Process]:
    """A process that does not outlive the context."""
    with subprocess.Popen(
        what, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: Process) -> tuple[int, str]:
    """The exit code of a process, and what it printed."""
    printed, _ = process.communicate(timeout=120)
    return process.returncode, printed


def wait_until(condition: Callable[[], bool], otherwise: str, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def test_killed_while_failures_are_asked_again(root: Root) -> None:
    failures = [
        Failure(stage="fetch", id=f"v{place}", kind="permanent", reason="http_404", message="", attempts=1)
        for place in range(5)
    ]
    put(fill(root, [""] * 5), failures, "fetch")
    assert crash("while failures are asked again", "sayso", "retry", "--root", root.url) == KILLED
    assert sorted(newest_failures(root, "fetch")["id"].to_pylist()) == ["v2", "v3", "v4"]
    ran = subprocess.run([SAYSO, "retry", "--root", root.url], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, "3 pending again" in ran.stdout) == (0, True), ran
    assert newest_failures(root, "fetch").num_rows == 0
    asked = [row.id for row in root.table(Failure).rows(kind="again")]
    assert sorted(asked) == [f"v{place}" for place in range(5)]


def test_killed_between_two_commits_of_discover(tmp_path: Path) -> None:
    root, urls = Root(str(tmp_path / "root")), tmp_path / "urls.txt"
    urls.write_text("\n".join(f"http://127.0.0.1:9/{place}.mp4" for place in range(5)))
    discover = ["discover", "--root", root.url, "--videos", str(urls), "sites.allow_private=true"]
    assert crash("between two commits of discover", "sayso", *discover) == KILLED
    first = set(root.table(Video).keys().to_pylist())
    assert len(first) == 2
    ran = subprocess.run([SAYSO, *discover], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    keys = root.table(Video).read(["video_id"])["video_id"].to_pylist()
    assert len(keys) == len(set(keys)) == 5
    assert first < set(keys)


def test_killed_while_a_root_is_made(tmp_path: Path) -> None:
    url = str(tmp_path / "root")
    assert crash("when the root is made", "sayso", "discover", "--root", url, "--videos", "x") == KILLED
    assert [path.name[:7] for path in Path(url).iterdir()] == [".probe-"]
    work(Keep(fill(Root(url).create())))
    assert done(Root(url)) == KEPT


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One small cluster for all runs of this file that need Ray."""
    with RayCluster(nodes=[], head_cpus=2) as running:
        yield running


def start(cluster: RayCluster, window: str, root: Root, kind: str = "") -> AbstractContextManager[Process]:
    environment = {**cluster.environment, "PYTHONPATH": str(REPOSITORY)}
    return begun(command(window, "run", root.url, kind), environment)


def finish(cluster: RayCluster, window: str, root: Root, kind: str = "") -> int:
    """Let the engine run to its end, whatever that is; its exit code."""
    with start(cluster, window, root, kind) as process:
        return ended(process)[0]


def titled(windows: list[str]) -> list[str]:
    """The usual videos, of which those without a title let their worker die in a window."""
    titles = iter(windows)
    return [title or next(titles, "") for title in TITLES]


def test_workers_killed_around_the_object_cost_no_row(
    cluster: RayCluster, root: Root, undisturbed: dict[str, Any]
) -> None:
    """One run goes on past all of them, and counts no row as deadly that got through."""
    windows = ["before the object", "half of the object", "object written and not in its place", "object in place"]
    fill(root, titled(windows))
    Path(root.url, "diary").mkdir()
    assert finish(cluster, "never", root) == 0
    assert len(list(Path(root.url, "diary").iterdir())) == len(windows)
    found = contents(root)
    found["table videos"] = undisturbed["table videos"]  # of which the titles differ
    assert found == undisturbed
    assert leftovers(root) == {"partial": 2}


@pytest.mark.parametrize("window", ["before the results", "between results and failures"])
def test_a_driver_killed_at_a_commit_is_gone_on_with_by_the_engine(
    window: str, cluster: RayCluster, root: Root, undisturbed: dict[str, Any]
) -> None:
    fill(root)
    assert finish(cluster, window, root) == KILLED
    assert done(root), "it was not killed at its second commit"
    assert finish(cluster, "never", root) == 0
    assert contents(root) == undisturbed


def test_of_two_runs_that_see_no_lease_one_stops(cluster: RayCluster, root: Root, undisturbed: dict[str, Any]) -> None:
    fill(root)
    with start(cluster, "never", root, "blind") as one, start(cluster, "never", root, "blind") as other:
        (code, _), (busy, printed) = sorted([ended(one), ended(other)])
    assert (code, busy) == (0, BUSY), printed
    assert "another run appends rows of `keep` to this root; this one stops" in printed
    assert contents(root) == undisturbed
    assert finish(cluster, "never", root) == 0
    assert contents(root) == undisturbed


def test_a_run_that_stood_still_while_another_took_over_writes_nothing(
    cluster: RayCluster, root: Root, undisturbed: dict[str, Any]
) -> None:
    fill(root)
    with start(cluster, "stand still before the results", root, "far") as still:
        wait_until(lambda: psutil.Process(still.pid).status() == psutil.STATUS_STOPPED, "it did not stop")
        assert done(root) < KEPT
        began = time.monotonic()
        assert finish(cluster, "never", root, "hasty") == 0
        assert time.monotonic() - began > TAKEOVER_SECONDS, "the lease of another machine was not watched"
        assert contents(root) == undisturbed
        versions = [root.table(model).version() for model in (Media, Failure)]
        still.send_signal(signal.SIGCONT)
        code, printed = ended(still)
    assert (code, "this one stops, nothing is lost or doubled" in printed) == (BUSY, True), printed
    assert [root.table(model).version() for model in (Media, Failure)] == versions
    assert contents(root) == undisturbed
    assert leftovers(root) == {"unnamed": 1}, "the rows of the commit that was refused"


def test_a_second_command_is_refused_before_it_does_anything(
    cluster: RayCluster, tiny_world: Path, tmp_path: Path
) -> None:
    root = Root(str(tmp_path / "root"))
    run = [str(SAYSO), "run", "--root", root.url, "--videos", str(next((tiny_world / "videos").iterdir()))]
    environment = {**cluster.environment, "OMP_NUM_THREADS": "1"}
    with begun(run, environment) as first:
        wait_until(lambda: at_work(root), "it did not begin")
        first.send_signal(signal.SIGSTOP)
        configured, version = root.storage.read("pipeline.yaml"), root.table(Video).version()
        second = subprocess.run([*run, "shard.val=0.5"], env=environment, capture_output=True, text=True, timeout=60)
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 1, second.stderr
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("sayso: ")]
        assert f"(process {first.pid} on " in line
        assert "works on align, captions, fetch, shard, transcribe; wait for it or stop it, then run" in line
        assert (root.storage.read("pipeline.yaml"), root.table(Video).version()) == (configured, version)
        code, printed = ended(first)
        assert code == 0, printed
    assert root.storage.list("leases") == []


def at_work(root: Root) -> bool:
    """Whether a run of all stages has come past discover."""
    if not root.storage.exists("sayso.json") or root.table(Video).version() < 1:
        return False
    leases = {key: root.storage.read(key) for key in root.storage.list("leases")}
    return len(leases) == 1 and b'"fetch"' in leases.popitem()[1]
