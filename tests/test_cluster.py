"""The cluster of the tests is what it says: real nodes that can be lost, and nothing left behind."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster import RayCluster, alive, living, marked


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with RayCluster() as running:
        yield running


def _until(true: Callable[[], bool], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_killed_node_is_lost_with_its_workers_and_another_takes_its_place(cluster: RayCluster) -> None:
    with cluster.joined():
        import ray

        class Where:
            def node(self) -> tuple[str, int]:
                name: str = ray.get_runtime_context().get_node_id()
                return name, os.getpid()

        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            assert set(alive(cluster)) == {"head", "node0", "node1"}
            actors: list[Any] = [ray.remote(Where).options(num_cpus=1).remote() for _ in range(2)]
            places = dict(ray.get([actor.node.remote() for actor in actors]))
            assert set(places) == {alive(cluster)[name]["NodeID"] for name in ("node0", "node1")}

            pids = cluster.nodes[0].workers()
            assert places[alive(cluster)["node0"]["NodeID"]] in pids
            cluster.kill_node(0)
            assert not any(living(pid) for pid in pids)
            _until(lambda: "node0" not in alive(cluster))

            cluster.add_node({"CPU": 1, "GPU": 2, "fast_disk": 1})
            assert alive(cluster)["node2"]["Resources"]["GPU"] == 2
            assert alive(cluster)["node2"]["Resources"]["fast_disk"] == 1
            cluster.remove_node(1)
            _until(lambda: set(alive(cluster)) == {"head", "node2"})
        finally:
            ray.shutdown()


def test_nothing_is_left_after_stop_whatever_was_killed_before() -> None:
    cluster = RayCluster([{"CPU": 1}])
    everything = [*cluster.head.processes(), *cluster.nodes[0].processes()]
    assert len(everything) > 6
    cluster.nodes[0].raylet().kill()
    cluster.head.raylet().kill()
    cluster.stop()
    assert not [process for process in everything if living(process.pid)]
    assert not marked(cluster.head.mark)
    assert not cluster.folder.exists()


def test_a_command_joins_through_the_environment(cluster: RayCluster) -> None:
    """That nobody joins without the token is tested with the engine's own way of joining, which says so sooner."""
    join = [sys.executable, "-c", "import ray; ray.init(logging_level='ERROR'); print(len(ray.nodes()))"]
    joined = subprocess.run(join, env=cluster.environment, capture_output=True, text=True)
    assert joined.stdout.strip() == "3", joined.stderr


def test_the_cluster_grows_with_pending_actors_and_shrinks_again() -> None:
    with RayCluster([], kinds={"cpu": ({"CPU": 1}, 2), "gpu": ({"CPU": 1, "GPU": 1}, 1)}) as cluster, cluster.joined():
        import ray

        class Idle:
            def ready(self) -> bool:
                return True

        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            assert set(alive(cluster)) == {"head"}
            needs: list[dict[str, Any]] = [{"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1}]
            actors: list[Any] = [ray.remote(Idle).options(**need).remote() for need in needs]
            assert all(ray.get([actor.ready.remote() for actor in actors], timeout=60))
            assert len(alive(cluster)) == 4
            assert sum(node["Resources"].get("GPU", 0) for node in alive(cluster).values()) == 1
            for actor in actors:
                ray.kill(actor)
            _until(lambda: len(alive(cluster)) == 1, within=60)
        finally:
            ray.shutdown()
    assert not marked(cluster.head.mark)
