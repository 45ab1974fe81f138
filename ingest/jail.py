"""Runs a program that touches foreign bytes, locked up: its own session, limits, no network, a bounded wall-clock time.

The program dies with its worker. What it prints to stderr is drained while it runs, and only the tail is kept.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LAUNCHER = Path(__file__).with_name("launcher.py")
_TAIL_BYTES = 4096
_KEPT_VARIABLES = ("LD_LIBRARY_PATH",)  # builds outside the system's own folders need it to start at all


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a locked-up program may use: wall-clock and CPU seconds, address space, and the size of any one file."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class Outcome:
    """How a locked-up program ended. `code` is its exit status, or minus the signal that ended it."""

    code: int
    timed_out: bool
    tail: str

    @property
    def out_of_cpu(self) -> bool:
        """Whether the limit of CPU seconds ended it."""
        return self.code == -signal.SIGXCPU

    @property
    def out_of_file(self) -> bool:
        """Whether it tried to write a file beyond the limit."""
        return self.code == -signal.SIGXFSZ


def run(command: Sequence[str | Path], *, folder: Path, stdout: Path, limits: Limits) -> Outcome:
    """Run a program with `folder` as its working folder and its standard output written to the file `stdout`.

    Must be called and awaited in one thread: the kernel takes the end of that thread for the end of the worker.
    """
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
    allowed = [str(int(limits.cpu_seconds) + 1), str(limits.memory_bytes), str(limits.file_bytes)]
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {"LC_ALL": "C"}
    with stdout.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # no shell, and the program is ours
            [*launcher, *allowed, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    assert process.stderr is not None
    deadline = time.monotonic() + limits.seconds
    try:
        tail = _drain(process.stderr, deadline)
        code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
        return Outcome(code, False, tail)
    except subprocess.TimeoutExpired as expired:
        return Outcome(-signal.SIGKILL, True, (expired.output or b"").decode(errors="replace"))
    finally:
        _kill(process)
        process.stderr.close()


def _drain(stream: IO[bytes], deadline: float) -> str:
    """Read until the stream ends; its last lines. TimeoutExpired at the deadline."""
    tail = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                raise subprocess.TimeoutExpired("ffmpeg", deadline, output=tail)
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                return tail.decode(errors="replace")
            tail = (tail + chunk)[-_TAIL_BYTES:]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole session of a process that is still there, and reap it."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
