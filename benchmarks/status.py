"""How long `sayso status` takes on a root of a million videos, and how much memory.

    PYTHONPATH=. python benchmarks/status.py [VIDEOS]

Makes the root (benchmarks/large_root.py) in a temporary folder and prints seconds and the most memory that was held:
of the function status(), which is what a dashboard calls, the first time and again; of one look of --watch; and of
the commands, from the shell.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.large_root import large_root

_SAYSO = Path(sys.executable).with_name("sayso")
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
_MIB = 2**20


def main(videos: int) -> None:
    """Make the root and measure on it."""
    with tempfile.TemporaryDirectory(prefix="sayso-benchmark-") as folder:
        began = time.monotonic()
        large_root(folder, done=videos)
        print(f"a root of {videos} videos: made in {time.monotonic() - began:.1f} s")
        # In a process of its own, so that what making the root held is not counted.
        ours = [sys.executable, __file__, "--functions", folder]
        subprocess.run(ours, check=True, env=_ENVIRONMENT)
        for arguments in (
            ["status", "--json"],
            ["failures", "--json"],
            ["retry", "--dry-run", "--class", "no_captions"],
        ):
            seconds, peak = _command([str(_SAYSO), *arguments, "--root", folder])
            print(f"sayso {' '.join(arguments)}: {seconds:.2f} s, peak {peak / _MIB:.0f} MiB")


def functions(folder: str) -> None:
    """Measure the functions, which this process has loaded already."""
    import resource

    from ops.pipeline import stages_of
    from ops.status import status
    from ops.watch import Watcher
    from sayso.root import Root

    root = Root(folder).open()
    stages = stages_of(root)
    watcher = Watcher(root, stages)
    for name, call in (
        ("status(), first", lambda: status(root, stages)),
        ("status(), again", lambda: status(root, stages)),
        ("a look of --watch that counts", watcher.look),
        ("a look of --watch", watcher.look),
    ):
        print(f"{name}: {_timed(call):.2f} s")
    print(f"peak of these: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MIB:.0f} MiB")


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _command(command: list[str]) -> tuple[float, int]:
    """Seconds and the most resident bytes of a command."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_ENVIRONMENT) as process:
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return time.monotonic() - began, usage.ru_maxrss * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--functions"]:
        functions(sys.argv[2])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 1_200_000)
