"""Joining a cluster: whoever has the token gets in, and whoever does not is told in one line what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import CheckAliveReply  # type: ignore[attr-defined]

from tests.cluster import RayCluster, free_port

# Joins as the engine does, and says what came of it.
_JOIN = """
import sys, time
from sayso.engine.cluster import Cluster
from sayso.engine.settings import EngineSettings
from sayso.errors import UserError

cluster = Cluster(EngineSettings(address=sys.argv[1] if len(sys.argv) > 1 else None))
try:
    cluster.connect()
except UserError as error:
    sys.exit(f"UserError: {error}")
import ray
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
cluster.close()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with RayCluster([]) as running:
        yield running


def _join(environment: dict[str, str], *address: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _JOIN, *address]
    return subprocess.run(command, env=environment, input="", capture_output=True, text=True, timeout=100)


def _refusal(environment: dict[str, str], *address: str) -> str:
    """The one line that a refused driver prints, which comes soon."""
    begun = time.monotonic()
    ran = _join(environment, *address)
    assert time.monotonic() - begun < 20
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert ran.stderr.startswith("UserError: engine.address: ")
    return ran.stderr


def _without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


def test_the_address_comes_from_the_settings_or_else_from_the_environment(cluster: RayCluster) -> None:
    no_address = _without(cluster.environment, "RAY_ADDRESS")
    assert _join(no_address, cluster.address).stdout.strip() == cluster.address
    assert _join(cluster.environment).stdout.strip() == cluster.address
    wrong = {**cluster.environment, "RAY_ADDRESS": f"127.0.0.1:{free_port()}"}
    assert _join(wrong, cluster.address).stdout.strip() == cluster.address


def test_a_wrong_token_is_refused(cluster: RayCluster) -> None:
    environment = _without(cluster.environment, "RAY_AUTH_TOKEN_PATH")
    said = _refusal({**environment, "RAY_AUTH_TOKEN": "0" * 64})
    assert "refuses our token" in said
    assert "RAY_AUTH_TOKEN_PATH" in said


def test_a_driver_without_tokens_is_refused(cluster: RayCluster) -> None:
    assert "refuses our token" in _refusal({**cluster.environment, "RAY_AUTH_MODE": "disabled"})


def test_a_missing_token_is_named(cluster: RayCluster, tmp_path: Path) -> None:
    home = {**_without(cluster.environment, "RAY_AUTH_TOKEN_PATH"), "HOME": str(tmp_path)}
    assert "no token for the Ray cluster" in _refusal(home)
    missing = {**cluster.environment, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")}
    assert "no token for the Ray cluster" in _refusal(missing)


@pytest.mark.parametrize("host", ["127.0.0.1", "head.invalid"])
def test_an_address_where_nobody_answers_is_named(cluster: RayCluster, host: str) -> None:
    address = f"{host}:{free_port()}"
    said = _refusal(cluster.environment, address)
    assert f"no Ray cluster answers at {address}" in said


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "127.0.0.1", "the cluster"])
def test_what_is_no_address_of_a_head_is_named(cluster: RayCluster, address: str) -> None:
    assert "write host:port" in _refusal(cluster.environment, address)


def test_a_machine_that_is_no_node_of_the_cluster_is_told_so() -> None:
    """Ray looks for a raylet of the cluster for a minute before it gives up; here it does so sooner."""
    with RayCluster([]) as cluster:
        cluster.head.raylet().kill()
        with cluster.joined():
            gcs = GcsClient(address=cluster.address)
            while any(node.state == GcsNodeInfo.ALIVE for node in gcs.get_all_node_info().values()):
                time.sleep(0.2)
        said = _refusal({**cluster.environment, "RAY_gcs_server_request_timeout_seconds": "3"})
    assert "is no node of it" in said
    assert "sayso submit" in said


def test_another_version_of_ray_is_named(cluster: RayCluster) -> None:
    """No second Ray can be installed here: a server that answers as the head of an older one does."""
    reply = CheckAliveReply(ray_version="2.9.0").SerializeToString()
    method = grpc.unary_unary_rpc_method_handler(lambda request, context: reply)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", {"CheckAlive": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert "has Ray 2.9.0" in _refusal(cluster.environment, f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


def test_a_ray_of_our_own_lets_in_only_who_has_the_token(tmp_path: Path) -> None:
    plain = {
        **_without(dict(os.environ), "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"),
        "HOME": str(tmp_path),
    }
    ours = subprocess.Popen(
        [sys.executable, "-c", _JOIN], env=plain, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert ours.stdout is not None
        address = ours.stdout.readline().strip()
        assert _join(plain, address).stdout.strip() == address
        for other in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
            assert "refuses our token" in _refusal({**plain, **other}, address)
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        assert "no token" in _refusal({**plain, "HOME": str(stranger)}, address)
    finally:
        ours.communicate()
    assert ours.returncode == 0
