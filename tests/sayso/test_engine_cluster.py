"""The engine on real clusters: nodes that join are used, nodes that go take nothing along, kinds share the nodes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from sayso.code import code_hash
from sayso.engine import Engine, EngineSettings, Progress
from sayso.engine.run import Watch
from sayso.errors import UserError
from sayso.root import Root
from sayso.rows import Failure, Media, SourceFacts, Transcript, Video
from sayso.stage import Resources, Stage
from tests.cluster import RayCluster, Shape, living

_SETTINGS = EngineSettings(backoff=0.05, commit_seconds=0.2, batch_seconds=1e-9)
_CPU: Shape = {"CPU": 1}
_GPU: Shape = {"CPU": 1, "GPU": 1}
_ONE_GPU = Resources(cpus=1, gpus=1)
_BIG = 5 * 10**6
_GIB = 2**30
_WAIT_SECONDS = 60.0


class Act(Stage[Video, Media]):
    """Does to each row what its title says."""

    name, reads, writes = "act", Video, Media

    def time_limit(self, row: Video) -> float:
        return {"hang": 2.0, "brief": 2.5}.get(row.title.split()[0], 100.0)

    def __call__(self, row: Video) -> Sequence[Media]:
        diary(self.root, f"{self.name} {row.video_id}")
        what, *rest = row.title.split()
        match what:
            case "sleep":
                time.sleep(float(rest[0]))
            case "pace":  # slow until what the test waits for has come to pass
                time.sleep(0.0 if Path(self.root.url, "let go").exists() else 0.3)
            case "hold":
                until(Path(self.root.url, "let go").exists)
            case "hang":
                # Once with the interpreter's lock held, once stopped altogether.
                ctypes.PyDLL(None).sleep(60) if rest[0] == "locked" else os.kill(os.getpid(), signal.SIGSTOP)
            case "big" | "brief" if rest and tried(self.root, row.video_id) == 1:
                time.sleep(0.6)
                fell(after=float(rest[0]))
            case "eat":
                eat(int(rest[0]))
        return [media(row.video_id, "x" * _BIG if what in ("big", "brief") else what)]


class Fragile(Act):
    """Every second worker dies as it opens the stage."""

    name = "fragile"

    def open(self) -> None:
        diary(self.root, f"{self.name} open")
        if tried(self.root, "open") % 2:
            os.kill(os.getpid(), signal.SIGKILL)


class Look(Stage[Media, Transcript]):
    """A stage for another kind of worker."""

    name, reads, writes = "look", Media, Transcript

    def __init__(self, root: Root, needs: Resources = _ONE_GPU) -> None:
        super().__init__(root)
        self.resources = needs

    def __call__(self, row: Media) -> Sequence[Transcript]:
        diary(self.root, f"{self.name} {row.video_id}")
        return [Transcript(video_id=row.video_id, source="x", language="en", speech_seconds=0.0, spans=[])]


def media(video_id: str, key: str) -> Media:
    facts = SourceFacts(sha256="", bytes=0, container="mp4", duration=10.0)
    return Media(
        video_id=video_id, key=key, sha256="", bytes=7, duration=10.0, width=1, height=1, fps=10.0, audio=True,
        source=facts,
    )  # fmt: skip


def diary(root: Root, what: str) -> None:
    """Note when, on which node of the cluster and in which process something was done."""
    node = os.environ["SAYSO_TEST_CLUSTER"].split("-")[1]
    with Path(root.url, "diary").open("a") as file:
        file.write(f"{time.time()} {node} {os.getpid()} {what}\n")


class Note:
    """A line of the diary."""

    def __init__(self, line: str) -> None:
        moment, self.node, pid, self.stage, self.row = line.split()
        self.time, self.pid = float(moment), int(pid)


def read_diary(root: Root) -> list[Note]:
    path = Path(root.url, "diary")
    return [Note(line) for line in path.read_text().splitlines()] if path.exists() else []


def tried(root: Root, row: str) -> int:
    return sum(1 for note in read_diary(root) if note.row == row)


def fell(after: float) -> None:
    """Lose this worker's node: the raylet, which started it, and itself."""
    kill = f"sleep {after}; kill -9 {os.getppid()} {os.getpid()}"
    subprocess.Popen(["sh", "-c", kill], start_new_session=True)


def eat(limit_bytes: int) -> None:
    """Take memory until the machine has used so much, and hold it."""
    eaten = []
    while psutil.virtual_memory().total - psutil.virtual_memory().available < limit_bytes:
        eaten.append(b"x" * (64 * 2**20))
        time.sleep(0.01)
    time.sleep(20.0)


def let_go(root: Root) -> None:
    Path(root.url, "let go").touch()


def until(true: Callable[[], bool], within: float = _WAIT_SECONDS) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def add(root: Root, titles: Sequence[str], first: int = 0) -> None:
    rows = [Video(video_id=f"v{i:03}", url="", title=title) for i, title in enumerate(titles, first)]
    root.table(Video).append([{**row.model_dump(), "made_by": "test", "made_from": ""} for row in rows])


def run(
    cluster: RayCluster,
    *stages: Stage[Any, Any],
    watch: Watch = lambda progress: None,
    **settings: Any,
) -> dict[str, Progress]:
    joining = _SETTINGS.model_copy(update={"address": cluster.address, **settings})
    with Engine(stages[0].root, joining) as engine:
        return {progress.stage: progress for progress in engine.run(stages, watch)}


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[Future[None]]:
    """Do something to the cluster while the engine runs in this thread."""
    with ThreadPoolExecutor(1) as threads:
        doing = threads.submit(act)
        yield doing
        doing.result()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One for most tests of this file, each of which has the nodes of it that it asks for (`stand`)."""
    with RayCluster([]) as running, running.joined():
        yield running


def stand(cluster: RayCluster, *shapes: Shape) -> list[str]:
    """See that the cluster has nodes of just these shapes; their names. Those that fit are kept: one takes 2 s."""
    names, missing = [], list(shapes)
    for node in cluster.nodes:
        shape = node.shape if node.processes() else None
        if shape in missing:
            missing.remove(shape)
            names.append(node.name)
        else:
            node.kill()
    return [*names, *(node.name for node in cluster.add_nodes(missing))]


def index(cluster: RayCluster, name: str) -> int:
    return next(place for place, node in enumerate(cluster.nodes) if node.name == name)


def results(root: Root) -> list[str]:
    return sorted(row.video_id for row in root.table(Media).rows())


def videos(number: int) -> list[str]:
    return [f"v{place:03}" for place in range(number)]


def failures(root: Root) -> list[tuple[str, str, str, int]]:
    return sorted((row.id, row.kind, row.reason, row.attempts) for row in root.table(Failure).rows())


def test_a_node_that_joins_is_used_at_once(cluster: RayCluster, root: Root) -> None:
    stand(cluster, _CPU)
    add(root, ["pace"] * 150)
    took: list[float] = []

    def join() -> None:
        until(lambda: read_diary(root) != [])
        node = cluster.add_node(_CPU).name
        joined = time.time()
        until(lambda: any(note.node == node for note in read_diary(root)))
        took.append(time.time() - joined)
        let_go(root)

    with meanwhile(join):
        run(cluster, Act(root))
    assert took[0] < 30, f"{took[0]:.1f} s from joining to the first row"
    assert results(root) == videos(150)
    assert failures(root) == []


def test_nodes_that_go_take_no_row_with_them_and_no_row_is_blamed(cluster: RayCluster, root: Root) -> None:
    stand(cluster, _CPU, _CPU)
    add(root, ["hold", *["sleep 0.1"] * 30])

    def lose_the_node_of_the_slow_row() -> None:
        for loss in range(4):
            until(lambda loss=loss: tried(root, "v000") > loss)  # type: ignore[misc]
            notes = [note for note in read_diary(root) if note.row == "v000"]
            going = index(cluster, notes[-1].node)
            if loss == 1:
                cluster.remove_node(going)
            else:
                cluster.kill_node(going)
            cluster.add_node(_CPU)
        until(lambda: tried(root, "v000") > 4)
        let_go(root)

    with meanwhile(lose_the_node_of_the_slow_row):
        done = run(cluster, Act(root))["act"]
    assert results(root) == videos(31)
    assert failures(root) == []
    assert (done.tally.done, done.settled) == (31, 31)


def test_kinds_of_workers_share_the_nodes_as_a_stream(cluster: RayCluster, root: Root) -> None:
    _, gpu = stand(cluster, _CPU, _GPU)
    assert side_by_side(cluster, root) == {gpu}


def test_kinds_of_workers_share_a_node(cluster: RayCluster, root: Root) -> None:
    both = stand(cluster, {"CPU": 2, "GPU": 1})
    assert side_by_side(cluster, root) == set(both)


def test_kinds_that_do_not_fit_at_once_take_turns(cluster: RayCluster, root: Root) -> None:
    stand(cluster, _GPU)
    add(root, ["sleep 0"] * 14)
    run(cluster, Act(root), Look(root), backlog_rows=6, node_limit=5)
    notes = read_diary(root)
    assert Counter(note.stage for note in notes) == {"act": 14, "look": 14}
    assert len({note.pid for note in notes}) <= 6, "workers are ended and started all the time"


def test_who_came_up_before_there_was_another_node_makes_room(cluster: RayCluster, root: Root) -> None:
    (gpu,) = stand(cluster, _GPU)

    def grow() -> None:
        until(lambda: read_diary(root) != [])
        cluster.add_node(_CPU)

    assert side_by_side(cluster, root, then=grow) == {gpu}
    assert read_diary(root)[0].node == gpu, "nobody had to make room"


def side_by_side(cluster: RayCluster, root: Root, then: Callable[[], None] = lambda: None) -> set[str]:
    """Run two stages of two kinds, where the first has work until the second is well under way; the second's nodes."""
    add(root, ["pace"] * 150)

    def wait() -> None:
        then()
        until(lambda: sum(note.stage == "look" for note in read_diary(root)) >= 8)
        assert sum(note.stage == "act" for note in read_diary(root)) < 150
        let_go(root)

    with meanwhile(wait):
        run(cluster, Act(root), Look(root))
    notes = read_diary(root)
    assert Counter(note.stage for note in notes) == {"act": 150, "look": 150}, "not each row once in each stage"
    return {note.node for note in notes if note.stage == "look"}


def test_the_run_ends_where_no_node_can_ever_hold_a_worker(cluster: RayCluster, root: Root) -> None:
    stand(cluster, _CPU)
    add(root, ["sleep 0.1"] * 3)
    began = time.monotonic()
    with pytest.raises(UserError, match="no node gave 3 cpus and 0 gpus for a worker within 4 s: let the cluster grow"):
        run(cluster, Act(root), Look(root, needs=Resources(cpus=3)), node_limit=4)
    assert time.monotonic() - began < 25
    assert results(root) == videos(3), "what could be done is lost"


def test_workers_with_other_code_are_refused(cluster: RayCluster, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    stand(cluster, _CPU)
    add(root, ["sleep 0"])
    monkeypatch.setattr("sayso.engine.pool.code_hash", lambda: "0" * 64)
    with pytest.raises(UserError, match=f"driver runs sayso 000000000000, the worker .* runs {code_hash()[:12]}"):
        run(cluster, Act(root))
    assert read_diary(root) == []


def test_a_worker_that_hangs_is_gone_after_its_time(cluster: RayCluster, root: Root) -> None:
    stand(cluster, _CPU, _CPU)
    add(root, ["hang locked", "hang stopped", *["sleep 0"] * 6])
    run(cluster, Act(root), attempts=1)
    assert results(root) == videos(8)[2:]
    assert failures(root) == [(row, "poison", "timeout", 1) for row in videos(2)]
    hung = [note.pid for note in read_diary(root) if note.row in videos(2)]
    assert len(set(hung)) == 2
    until(lambda: not any(living(pid) for pid in hung), within=20)


def test_large_results_survive_a_node_that_dies_with_them(cluster: RayCluster, root: Root) -> None:
    # The first row's node goes before anybody has looked at the result, the second's while it is on the way.
    lose_nodes(cluster, root, ["big 0.2", "big 0", *["big"] * 4], blind_seconds=1.5)


def test_a_row_whose_node_is_lost_unnoticed_did_not_take_too_long(cluster: RayCluster, root: Root) -> None:
    # The row's time is over when the engine looks again, and Ray does not know yet that the node is gone.
    lose_nodes(cluster, root, ["brief 0.1", *["big"] * 4], blind_seconds=2.4)


def lose_nodes(cluster: RayCluster, root: Root, titles: list[str], blind_seconds: float) -> None:
    """Run rows that lose their nodes; the engine looks away for a while when the first begins."""
    stand(cluster, _CPU, _CPU)
    add(root, titles)
    seen: set[str] = set()

    def look_away(progress: Progress) -> None:
        if tried(root, "v000") == 1 and not seen:
            seen.add("v000")
            time.sleep(blind_seconds)

    def replace() -> None:
        until(lambda: tried(root, "v000") > 0)
        cluster.add_node(_CPU)

    with meanwhile(replace):
        run(cluster, Act(root), watch=look_away)
    assert results(root) == videos(len(titles))
    assert {len(row.key) for row in root.table(Media).rows()} == {_BIG}
    assert failures(root) == []
    assert tried(root, "v000") == 2, "no result was lost, so nothing was tested"


def test_workers_that_die_now_and_then_as_they_open_a_stage_end_nothing(cluster: RayCluster, root: Root) -> None:
    stand(cluster, _CPU)
    add(root, ["sleep 0"] * 3)
    run(cluster, Fragile(root), worker_rows=1)
    assert results(root) == videos(3)
    assert failures(root) == []
    assert tried(root, "open") == 6


def test_the_autoscaler_brings_nodes_for_the_work_and_takes_them_away(root: Root) -> None:
    kinds: dict[str, tuple[Shape, int]] = {"cpu": (_CPU, 2), "gpu": (_GPU, 1)}
    with RayCluster([], kinds=kinds) as cluster, cluster.joined():
        assert side_by_side(cluster, root)
        workers = {note.pid for note in read_diary(root) if note.stage == "act"}
        assert len(workers) >= 2, "one node did all"
        until(lambda: raylets(cluster) == 1)


def raylets(cluster: RayCluster) -> int:
    """Nodes, the head among them: those of the autoscaler belong to it."""
    return sum(each.info["name"] == "raylet" for each in cluster.head.processes())


def test_a_worker_that_ray_kills_for_want_of_memory_is_told_from_others(root: Root) -> None:
    memory = psutil.virtual_memory()
    limit_bytes = memory.total - memory.available + 4 * _GIB  # out of reach for the tests that run beside this one
    ray = {"RAY_memory_usage_threshold": str(limit_bytes / memory.total), "RAY_memory_monitor_refresh_ms": "100"}
    with RayCluster([_CPU], variables=ray) as cluster, cluster.joined():
        add(root, ["sleep 0", f"eat {limit_bytes + _GIB // 2}", "sleep 0"])
        run(cluster, Act(root), attempts=2, worker_memory_gib=64)
    assert results(root) == ["v000", "v002"]
    assert failures(root) == [("v001", "poison", "out_of_memory", 2), ("v001", "retry", "out_of_memory", 1)]
