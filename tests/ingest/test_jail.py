"""What a locked-up program cannot do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import ingest.jail
from ingest.jail import Limits, Outcome, run

ROOMY = Limits(seconds=30, cpu_seconds=30, memory_bytes=2 << 30, file_bytes=64 << 20)


def python(folder: Path, code: str, limits: Limits = ROOMY) -> tuple[Outcome, str]:
    """Run Python code locked up; how it ended and what it printed."""
    printed = folder / "printed"
    outcome = run([sys.executable, "-c", code], folder=folder, stdout=printed, limits=limits)
    return outcome, printed.read_text()


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether a process ends in time; a zombie counts as ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_program_runs_in_its_folder_with_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the worker")
    outcome, printed = python(tmp_path, "import os; print(os.getcwd()); print('SECRET' in os.environ)")
    assert outcome == Outcome(0, False, "")
    assert printed.splitlines() == [str(tmp_path), "False"]


def test_exit_status_and_the_tail_of_stderr_are_told(tmp_path: Path) -> None:
    code = "import sys; sys.stderr.write('x' * 20_000_000 + 'the end'); sys.exit(7)"
    outcome, _ = python(tmp_path, code)
    assert outcome.code == 7
    assert outcome.tail.endswith("the end")
    assert len(outcome.tail) <= 4096


def test_the_network_is_shut(tmp_path: Path) -> None:
    code = "import socket\ntry: socket.socket()\nexcept PermissionError: print('refused')"
    assert python(tmp_path, code)[1] == "refused\n"


def test_memory_is_bounded(tmp_path: Path) -> None:
    code = "try: bytearray(3 << 30)\nexcept MemoryError: print('refused')"
    assert python(tmp_path, code)[1] == "refused\n"


def test_cpu_time_is_bounded(tmp_path: Path) -> None:
    outcome, _ = python(tmp_path, "while True: pass", replace(ROOMY, cpu_seconds=0.0))
    assert outcome.out_of_cpu


def test_files_are_bounded(tmp_path: Path) -> None:
    code = "import os, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nopen('big', 'wb').write(bytes(1 << 21))"
    outcome, _ = python(tmp_path, code, replace(ROOMY, file_bytes=1 << 20))
    assert outcome.out_of_file
    assert (tmp_path / "big").stat().st_size <= 1 << 20


def test_its_whole_session_is_ended_at_the_deadline(tmp_path: Path) -> None:
    code = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    began = time.monotonic()
    outcome, printed = python(tmp_path, code, replace(ROOMY, seconds=1.0))
    assert outcome.timed_out
    assert time.monotonic() - began < 5
    assert gone(int(printed))


def test_a_program_that_closes_its_stderr_is_ended_at_the_deadline(tmp_path: Path) -> None:
    outcome, _ = python(tmp_path, "import os, time; os.close(2); time.sleep(60)", replace(ROOMY, seconds=1.0))
    assert outcome.timed_out


def test_it_dies_with_its_worker(tmp_path: Path) -> None:
    worker_code = f"""
import sys
sys.path.insert(0, {str(Path(ingest.jail.__file__).parents[1])!r})
from pathlib import Path
from ingest.jail import Limits, run
code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
limits = Limits(seconds=60, cpu_seconds=60, memory_bytes=2 << 30, file_bytes=1 << 20)
folder = Path({str(tmp_path)!r})
run([sys.executable, "-c", code], folder=folder, stdout=folder / "pid", limits=limits)
"""
    worker = subprocess.Popen([sys.executable, "-c", worker_code])
    printed = tmp_path / "pid"
    while not (printed.exists() and printed.read_text().endswith("\n")):
        assert worker.poll() is None
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert gone(int(printed.read_text()))
