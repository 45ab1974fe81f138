"""The Ray actor that works: one process that opens a stage when it first meets it and then takes batch after batch."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sayso.code import check_same_code
from sayso.engine.outcome import OUT_OF_MEMORY, Failed, Fatal, Outcome, attempt
from sayso.errors import UserError, WorkFailed
from sayso.rows import Row
from sayso.stage import Stage

_SCRATCH = "sayso-scratch"
# A worker is replaced between two rows once it has grown to this share of what it may have.
_GROWN = 0.75


@dataclass(frozen=True)
class Hello:
    """A worker's first words."""

    node_id: str
    pid: int


@dataclass(frozen=True)
class Report:
    """What became of a batch; `spent` where the worker has to be replaced for its memory."""

    outcomes: list[Outcome]
    seconds: float
    spent: bool


class Worker:
    """Wrapped by the pool with `ray.remote`; plain otherwise."""

    def __init__(self, memory_bytes: int, capped: bool = True) -> None:
        """`capped` makes an allocation beyond `memory_bytes` fail instead of only replacing the worker afterwards."""
        self._stages: dict[str, Stage[Any, Any]] = {}
        self._memory_bytes = memory_bytes
        tempfile.tempdir = str(own_scratch())
        if capped:
            _cap_memory(memory_bytes)

    def greet(self, driver_code: str) -> Hello | Fatal:
        """Where this worker is; Fatal where it runs other code than the driver."""
        import ray

        try:
            check_same_code(driver_code)
        except UserError as error:
            return Fatal(error)
        return Hello(ray.get_runtime_context().get_node_id(), os.getpid())

    def open(self, stage: Stage[Any, Any]) -> Fatal | None:
        """Load a stage's models; Fatal where they cannot be had."""
        try:
            stage.open()
        except (UserError, WorkFailed) as error:
            return Fatal(error)
        self._stages[stage.name] = stage
        return None

    def work(self, name: str, rows: Sequence[Row]) -> Report:
        """Try rows of an opened stage, one after the other."""
        began = time.perf_counter()
        outcomes = [attempt(self._stages[name], row) for row in rows]
        seconds = time.perf_counter() - began
        starved = any(isinstance(each, Failed) and each.reason == OUT_OF_MEMORY for each in outcomes)
        grown = psutil.Process().memory_info().rss > _GROWN * self._memory_bytes
        return Report(outcomes, seconds, spent=starved or grown)


def _cap_memory(memory_bytes: int) -> None:
    """Let allocations fail beyond so many bytes more than this process has now.

    The limit is on private writable memory (RLIMIT_DATA): Ray's shared memory and mapped model files do not count.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return
    sizes = dict(line.split(":", 1) for line in status.read_text().splitlines())
    now_bytes = int(sizes["VmData"].split()[0]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now_bytes + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def own_scratch() -> Path:
    """A temporary folder of this process, after sweeping those of processes that were killed."""
    base = Path(tempfile.gettempdir()) / _SCRATCH
    base.mkdir(parents=True, exist_ok=True)
    for folder in base.iterdir():
        if folder.name.isdigit() and not psutil.pid_exists(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    own = base / str(os.getpid())
    own.mkdir(exist_ok=True)
    return own
