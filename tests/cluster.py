"""A real Ray cluster on this machine: a head and several raylets, each of which can be lost like a machine.

Every process of a cluster carries a mark in its environment, which Ray hands down to whatever it starts. So a node's
processes are found even when the one that started them was killed, and nothing else is ever touched.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

_RAY = Path(sys.executable).with_name("ray")
_MARK = "SAYSO_TEST_CLUSTER"
_STORE_BYTES = 80 * 2**20
_START_SECONDS = 90.0
_GRACE_SECONDS = 10.0

Shape = Mapping[str, float]


class Node:
    """One raylet with its agents and workers. `name` is the node's name in Ray (NodeName), `shape` its resources."""

    def __init__(self, name: str, mark: str, shape: Shape) -> None:
        self.name, self.mark, self.shape = name, mark, shape

    def processes(self) -> list[psutil.Process]:
        """All living processes of the node."""
        return marked(self.mark)

    def raylet(self) -> psutil.Process:
        """The node's raylet; StopIteration where it is dead."""
        return next(each for each in self.processes() if "/raylet/raylet" in _title(each))

    def workers(self) -> list[int]:
        """Pids of the node's worker processes: actors, tasks, and workers that wait for one."""
        return [each.pid for each in self.processes() if _is_worker(each)]

    def runs(self, program: str) -> bool:
        """Whether a program whose name begins so runs on the node at this moment."""
        return any(each.info["name"].startswith(program) for each in self.processes())

    def kill(self) -> None:
        """kill -9 of everything on the node at once, as when a machine is lost."""
        kill_all(self.mark)

    def leave(self) -> None:
        """Let the raylet take its leave of the cluster, as on a planned end of a machine, then end the rest."""
        raylet = self.raylet()
        raylet.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        while living(raylet.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        kill_all(self.mark)


class RayCluster:
    """A head and raylets with token authentication, a token of their own and a session folder of their own.

    >>> with RayCluster(nodes=[{"CPU": 1}, {"CPU": 1, "GPU": 1}]) as cluster:  # doctest: +SKIP
    ...     subprocess.run(["sayso", "run", ...], env=cluster.environment)
    ...     cluster.kill_node(0)

    `nodes` gives the resources of each; the head has `head_cpus`. `jobs` starts the job server, at `job_address`.
    `variables` are laid over the environment of the cluster's processes (credentials that only workers have, say).
    `kinds` turns Ray's autoscaler on: raylets of these resources, so many at most, come and go as the work asks.
    They belong to the head (its monitor starts them), and `nodes` does not list them.
    """

    def __init__(
        self,
        nodes: Sequence[Shape] = ({"CPU": 1}, {"CPU": 1}),
        *,
        head_cpus: int = 0,
        jobs: bool = False,
        variables: Mapping[str, str] | None = None,
        kinds: Mapping[str, tuple[Shape, int]] | None = None,
    ) -> None:
        # Ray's sockets lie below it, and the path of a socket has 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
        self._id = secrets.token_hex(8)
        self._variables = dict(variables or {})
        self._kinds = kinds
        self.token_file = self.folder / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(secrets.token_hex(32))
        self._names = 0
        self.nodes: list[Node] = []
        self.job_address = f"http://127.0.0.1:{free_port()}" if jobs else None
        try:
            self.head = self._start_head(head_cpus)
            self.add_nodes(nodes)
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        """Where drivers join."""
        return (self.folder / "head" / "ray_current_cluster").read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command that joins the cluster."""
        return {**self._authenticated(), "RAY_ADDRESS": self.address}

    def _authenticated(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("RAY_AUTH_TOKEN", "RAY_ADDRESS")}
        return {
            **kept,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def _start_head(self, cpus: int) -> Node:
        dashboard = ["--include-dashboard=false"]
        if self.job_address:
            dashboard = ["--include-dashboard=true", f"--dashboard-port={self.job_address.rsplit(':')[-1]}"]
        options = ["--head", f"--ray-client-server-port={free_port()}", *dashboard, *self._autoscaler(cpus)]
        node, starting = self._launch("head", {"CPU": cpus}, options)
        _finish(starting)
        return node

    def _autoscaler(self, head_cpus: int) -> list[str]:
        """Options of the head: without the autoscaler any port will do, the autoscaler must be told it beforehand."""
        if self._kinds is None:
            return ["--port=0"]
        port = free_port()
        config = self.folder / "autoscaling.json"
        config.write_text(json.dumps(_autoscaling(f"{_own_ip()}:{port}", head_cpus, self._kinds)))
        return [f"--port={port}", f"--autoscaling-config={config}"]

    def add_node(self, shape: Shape) -> Node:
        """One more raylet; returns when it has joined."""
        return self.add_nodes([shape])[0]

    def add_nodes(self, shapes: Sequence[Shape]) -> list[Node]:
        """Raylets that are started side by side; returns when all have joined."""
        address = self.address
        launched = []
        for shape in shapes:
            name = f"node{self._names}"
            self._names += 1
            launched.append(self._launch(name, shape, [f"--address={address}", "--include-log-monitor=false"]))
        self.nodes += [node for node, _ in launched]
        for _, starting in launched:
            _finish(starting)
        return [node for node, _ in launched]

    def _launch(self, name: str, shape: Shape, options: list[str]) -> tuple[Node, subprocess.Popen[str]]:
        rest = {key: value for key, value in shape.items() if key not in ("CPU", "GPU")}
        mark = f"{self._id}-{name}-"
        own = self.folder / name
        own.mkdir(exist_ok=True)
        command = [
            str(_RAY),
            "start",
            *options,
            f"--node-name={name}",
            f"--num-cpus={shape.get('CPU', 0):g}",
            f"--num-gpus={shape.get('GPU', 0):g}",
            f"--resources={json.dumps(rest)}",
            f"--object-store-memory={_STORE_BYTES}",
            # Raylets that start side by side would take the same names for their sockets in one folder.
            f"--temp-dir={own}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--dashboard-agent-listen-port=0",
        ]
        environment = {
            **self._authenticated(),
            # As in a shell where the environment was activated: jobs call python3.
            "PATH": os.pathsep.join([str(_RAY.parent), os.environ.get("PATH", os.defpath)]),
            **self._variables,
            _MARK: mark,
            # Ray writes its workers' titles over their environment otherwise, and the mark with it.
            "SPT_NOENV": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            # A lost node is seen in seconds, yet a busy machine is not taken for a dead one.
            "RAY_health_check_period_ms": "500",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        starting = subprocess.Popen(
            command,
            cwd=own,  # what a path in /proc/self/cwd means is then another thing on each node, as on machines
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return Node(name, mark, shape), starting

    def kill_node(self, index: int) -> None:
        """kill -9 of a raylet, its agents and its workers."""
        self.nodes[index].kill()

    def remove_node(self, index: int) -> None:
        """Take a node away in order."""
        self.nodes[index].leave()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Let drivers of this process join: its environment is the cluster's for so long."""
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        before = dict(os.environ)
        os.environ.update(self.environment)
        os.environ.pop("RAY_AUTH_TOKEN", None)
        # Ray keeps the mode and the token that it read first.
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            AuthenticationTokenLoader.instance().reset_cache()

    def stop(self) -> None:
        """End every process of the cluster, whatever state it is in, and remove its folder."""
        kill_all(self._id + "-")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _autoscaling(address: str, head_cpus: int, kinds: Mapping[str, tuple[Shape, int]]) -> dict[str, Any]:
    """A configuration of Ray's autoscaler whose machines are raylets on this one.

    Ray's own AutoscalingCluster does the same, but it begins with `ray stop --force`, which kills everybody's Ray.
    """
    types: dict[str, Any] = {
        kind: {"resources": dict(shape), "node_config": {}, "min_workers": 0, "max_workers": most}
        for kind, (shape, most) in kinds.items()
    }
    types["ray.head.default"] = {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0}
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "test",
        "max_workers": sum(most for _, most in kinds.values()),
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,  # all have one address
            "disable_node_updaters": True,  # nothing is to be set up over SSH
            "disable_launch_config_check": True,
        },
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": 0.1,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{name}_commands": [] for name in lists},
    }


def _own_ip() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())  # type: ignore[no-untyped-call]


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def marked(mark: str) -> list[psutil.Process]:
    """Living processes whose mark begins so, and their descendants: a jailed one has another environment."""
    needle = f"{_MARK}={mark}".encode()
    everything = {process.pid: process for process in psutil.process_iter(["name", "ppid", "status"])}
    found = {pid for pid in everything if any(each.startswith(needle) for each in _environ(pid))}
    # Parents mostly come before their children, so that this is over after a round or two.
    while more := {pid for pid, each in everything.items() if each.info["ppid"] in found} - found:
        found |= more
    return [everything[pid] for pid in sorted(found) if everything[pid].info["status"] != psutil.STATUS_ZOMBIE]


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def living(pid: int) -> bool:
    """Whether the process runs: one that has ended and waits for its parent to notice does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_all(mark: str) -> None:
    """kill -9 of marked processes until there are none: those that start another while we look are caught too."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while found := marked(mark):
        assert time.monotonic() < deadline, f"processes that do not die: {found}"
        # Raylets first, or they would replace the workers.
        for process in sorted(found, key=_is_worker):
            _signal(process, signal.SIGKILL)
        time.sleep(0.05)


def _signal(process: psutil.Process, number: int) -> None:
    """Send a signal; nothing happens where the process has just ended."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _is_worker(process: psutil.Process) -> bool:
    title = _title(process)
    return title.startswith("ray::") and "Agent" not in title


def _title(process: psutil.Process) -> str:
    """The command line, or what Ray wrote in its place; empty where the process has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _finish(starting: subprocess.Popen[str]) -> None:
    """Wait for `ray start`; AssertionError with what it printed where it failed."""
    try:
        printed, _ = starting.communicate(timeout=_START_SECONDS)
    except subprocess.TimeoutExpired:
        starting.kill()
        printed, _ = starting.communicate()
        raise AssertionError(f"ray start took more than {_START_SECONDS:g} s:\n{printed}") from None
    assert starting.returncode == 0, printed


def alive(cluster: RayCluster) -> dict[str, dict[str, Any]]:
    """What Ray itself says: living nodes by name, those of the autoscaler by id; for a driver that has joined."""
    import ray

    names = {node.name for node in (cluster.head, *cluster.nodes)}
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {each["NodeName"] if each["NodeName"] in names else each["NodeID"]: each for each in nodes if each["Alive"]}
