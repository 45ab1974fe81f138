"""A real S3 server on this machine: SeaweedFS (master, volume, filer and S3 gateway in one process) on loopback ports.

    with SeaweedFS(folder) as server:
        os.environ.update(server.environment)
        root = Root(server.bucket("data") + "/root").create()

It may be killed and started again on the same folder and ports: what it acknowledged is still there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError

_WEED = Path(sys.executable).with_name("weed")
_KEY, _SECRET = "sayso", "sayso-secret"
_SERVERS = ("master", "volume", "filer", "s3")
# Below the ports that outgoing connections are given: a client that knocks on a closed port of its own machine
# again and again would else be connected with itself one day, and the server could not come back.
_PORTS = range(20_000, 32_000)
# Dies with the process that started it, however that one ends.
_DIES_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.argv[1], sys.argv[1:])
"""


class SeaweedFS:
    """One server with its data in `folder`. Its keys may do everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(2 * len(_SERVERS))
        self._process: subprocess.Popen[bytes] | None = None
        self._buckets: set[str] = set()

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.ports[_SERVERS.index('s3')]}"

    @property
    def environment(self) -> dict[str, str]:
        """What clients must have in their environment."""
        return client_environment(self.endpoint)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, within: float = 60.0) -> SeaweedFS:
        """Start it, new or again, and wait until it stores and gives back. RuntimeError after `within` seconds."""
        assert not self.running, "started already"
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        config.write_text(json.dumps(_identities()))
        command = [str(_WEED), "-logtostderr=true", "server", *self._options(config)]
        if threading.current_thread() is threading.main_thread():  # the kernel looks at the end of the thread
            command = [sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, *command]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait(within)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, within: float = 2.0) -> None:
        """End it in order, as far as it manages in a while: it waits for clients. Nothing where it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a failing machine would; nothing happens where it does not run."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        for socket_file in self._socket_files():
            socket_file.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Let it hang: connections are taken and nothing is answered."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def bucket(self, name: str) -> str:
        """The URL of a bucket, which is made if it is not there."""
        if name not in self._buckets:
            client = self.client()
            if not client.exists(name):
                client.mkdir(name)
            self._buckets.add(name)
        return f"s3://{name}"

    def client(self) -> Any:
        """A client of s3fs that needs nothing from the environment."""
        return s3fs.S3FileSystem(key=_KEY, secret=_SECRET, endpoint_url=self.endpoint, use_listings_cache=False)

    def __enter__(self) -> SeaweedFS:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _options(self, config: Path) -> list[str]:
        ports = [f"-{server}.port={port}" for server, port in zip(_SERVERS, self.ports, strict=False)]
        grpc_ports = [f"-{server}.port.grpc={port}" for server, port in zip(_SERVERS, self._grpc_ports, strict=True)]
        return [
            f"-dir={self.folder}", "-ip=127.0.0.1", *ports, *grpc_ports, "-s3", f"-s3.config={config}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false",
            # One server elects itself: waiting for others is most of what a start takes.
            "-master.electionTimeout=1s", "-volume.preStopSeconds=0",
            # A bucket takes seven volumes of its own; they grow as they are filled.
            "-master.volumeSizeLimitMB=1024", "-volume.max=200",
        ]  # fmt: skip

    @property
    def _grpc_ports(self) -> list[int]:
        return self.ports[len(_SERVERS) :]

    def _socket_files(self) -> list[Path]:
        """The sockets that it leaves in /tmp when it is killed."""
        grpc = zip(_SERVERS, self._grpc_ports, strict=True)
        own = zip(_SERVERS, self.ports, strict=False)
        names = [*(f"{name}-grpc-{port}" for name, port in grpc), *(f"{name}-{port}" for name, port in own)]
        return [Path("/tmp") / f"seaweedfs-{name}.sock" for name in names]

    def _wait(self, within: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + within
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"SeaweedFS did not start:\n{tail}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether it stores an object and gives it back."""
        port = self.ports[_SERVERS.index("s3")]
        with socket.socket() as knock:  # a client's own retries would take longer than the server
            if knock.connect_ex(("127.0.0.1", port)):
                return False
        data = uuid.uuid4().bytes
        client = self.client()
        try:
            self.bucket("ready")
            client.pipe_file("ready/probe", data)
            return bool(client.cat_file("ready/probe") == data)
        except (OSError, BotoCoreError):
            return False


def client_environment(endpoint: str) -> dict[str, str]:
    """The environment of clients that go to an endpoint, which may be one that stands before the server."""
    return {
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _identities() -> dict[str, Any]:
    keys = {"accessKey": _KEY, "secretKey": _SECRET}
    return {"identities": [{"name": "all", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]}


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as attempt, suppress(OSError):
            attempt.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")
