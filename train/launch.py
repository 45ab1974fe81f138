"""Start a recipe's ranks on this machine with the DeepSpeed launcher, watch them, end them.

    launch -> deepspeed.launcher.runner -> deepspeed.launcher.launch -> one train.worker a rank

They are one process group, so that a signal to us ends all of them. Should we be killed ourselves, the ranks notice
that their standard input is closed and end.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from sayso.errors import Preempted, Stopped, WorkFailed
from train.distributed import RESUME, WATCH_STDIN
from train.metrics import read_metrics
from train.mirror import Mirror
from train.recipe import Recipe, load_recipe
from train.run import METRICS, RECIPE, Plan, latest_model, prepare

REPOSITORY = Path(__file__).parents[1]
GRACE = 10.0  # seconds the ranks have to end after SIGTERM
POLL = 0.2


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended."""

    folder: str
    model: str
    steps: int
    started_from: int
    clips: int
    loss: float
    seconds: float

    def to_json(self) -> dict[str, str | int | float]:
        """As a mapping of plain values."""
        return asdict(self)


def launch(path_or_name: str | Path, overrides: Sequence[str] = ()) -> TrainResult:
    """Train a recipe on this machine; a run that was stopped goes on, one that is finished ends at once.

    Raises ConfigError or InputError before anything starts, WorkFailed when the ranks fail, Stopped when they are
    stopped, and Preempted of it when that was by SIGTERM, after a checkpoint.
    """
    recipe = load_recipe(path_or_name, list(overrides))
    with _preempted_by_sigterm():
        if recipe.output.mirror is not None:
            Mirror(recipe.output.mirror, recipe.output.folder).fetch()
        plan = prepare(recipe)
    began = time.monotonic()
    if plan.finished:
        _say(f"{recipe.output.folder}: already trained, {plan.total} of {plan.total} steps")
    else:
        if plan.start:
            _say(f"{recipe.output.folder}: going on after step {plan.start} of {plan.total}")
        run_ranks(recipe)
    return _result(recipe, plan, time.monotonic() - began)


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201  # progress is for people


def _result(recipe: Recipe, plan: Plan, seconds: float) -> TrainResult:
    folder = recipe.output.folder
    return TrainResult(
        folder=str(folder),
        model=str(latest_model(folder)),
        steps=plan.total,
        started_from=plan.start,
        clips=plan.clips,
        loss=read_metrics(folder / METRICS)[-1]["loss"],
        seconds=round(seconds, 1),
    )


def run_ranks(recipe: Recipe) -> None:
    """Run the ranks of a prepared recipe to their end; WorkFailed if it is not a good one."""
    with (
        subprocess.Popen(  # noqa: S603  # the arguments are ours, no shell is between
            launcher_command(recipe, port=free_port()),
            env=rank_environment(recipe),
            stdin=subprocess.PIPE,
            stdout=2,  # our standard output is for data
            start_new_session=True,
        ) as process,
        _signals_caught() as caught,
    ):
        try:
            wait_for_ranks(process, caught)
        finally:
            end_group(process)
    if signal.SIGINT in caught or len(caught) > 1:
        name = signal.Signals(caught[-1]).name
        raise Stopped(f"training was stopped by {name}; the same command goes on from the last checkpoint")
    if process.returncode == RESUME or (caught and process.returncode not in (0, 1, 2)):
        raise Preempted("training was stopped by SIGTERM; the same command goes on from the checkpoint it wrote")
    if process.returncode:
        raise WorkFailed(f"training ended with code {process.returncode}; what the ranks said stands above")


def wait_for_ranks(process: subprocess.Popen[bytes], caught: Sequence[int]) -> None:
    """Wait until the ranks have ended, or a signal wants them to end at once.

    SIGTERM, as schedulers and spot instances send it, is passed on: the ranks take the step to its end, write a
    checkpoint and leave. Whoever sent it decides how long that may take, and kills us when it took too long.
    """
    told = False
    while process.poll() is None and not set(caught) - {signal.SIGTERM} and len(caught) < 2:
        if caught and not told:
            told = True
            _say("SIGTERM: writing a checkpoint after this step; a second one, or Ctrl-C, ends at once")
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # they have just ended
                process.stdin.write(b"s")
                process.stdin.flush()
        time.sleep(POLL)


def launcher_command(recipe: Recipe, *, port: int) -> list[str]:
    """The command line of the DeepSpeed launcher for this machine alone."""
    return [
        *(sys.executable, "-m", "deepspeed.launcher.runner"),
        *("--hostfile", os.devnull),  # this machine alone, whatever lies in the default place
        *_devices(recipe),
        *("--master_addr", "127.0.0.1", "--master_port", str(port)),
        *("--no_local_rank", "--log_level", "error"),
        *("--module", "train.worker", str(recipe.output.folder.absolute() / RECIPE)),
    ]


def _devices(recipe: Recipe) -> list[str]:
    ranks = recipe.engine.ranks
    visible = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.isdigit()]
    if recipe.engine.resolved_device == "cuda" and visible:
        # With a bare number the launcher would take the first devices of the machine, not of those lent to us.
        return ["--include", f"localhost:{','.join(visible[:ranks])}"]
    return ["--num_accelerators", str(ranks)]


def rank_environment(recipe: Recipe) -> dict[str, str]:
    """The environment of the ranks."""
    environment = dict(os.environ)
    cores = len(os.sched_getaffinity(0))
    threads = recipe.engine.threads or max(1, cores // recipe.engine.ranks)
    environment["OMP_NUM_THREADS"] = str(threads)
    environment["DS_ACCELERATOR"] = recipe.engine.resolved_device
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(REPOSITORY)]))
    environment[WATCH_STDIN] = "1"
    return environment


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _preempted_by_sigterm() -> Iterator[None]:
    """While there is no rank yet that SIGTERM could be passed to, it ends us with what means "run it again"."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise Preempted("training was stopped by SIGTERM before it began; the same command goes on")

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _signals_caught() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; elsewhere than in the main thread, nothing changes."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything in its group: SIGTERM, and SIGKILL for what is left after some seconds.

    Ranks take SIGTERM for the wish to write a checkpoint; the end of their standard input ends them at once.
    """
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        if not _send(process.pid, number):
            break
        deadline = time.monotonic() + patience
        while _send(process.pid, 0) and time.monotonic() < deadline:
            process.poll()  # takes the leader's exit status, so that the group can end
            time.sleep(POLL / 4)
    process.wait()


def _send(group: int, number: int) -> bool:
    """Send a signal to a process group; False where there is none any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
