"""The ranks of a run on one machine: the DeepSpeed launcher and all that it starts, one process group.

    Node -> deepspeed.launcher.runner -> deepspeed.launcher.launch -> one train.worker a rank

Each machine starts its own launcher, which is told of the others (--no_ssh). A signal to the group ends all of it.
Should the process that holds the Node be killed, the ranks notice that their standard input is closed, and end. The
launcher gets no SIGTERM (train/stopping.py).
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from sayso.errors import ConfigError
from train.distributed import OWN_FOLDERS, WATCH_STDIN
from train.hold import Hold
from train.metrics import read_metrics
from train.mirror import Mirror
from train.recipe import Recipe
from train.run import CHECKPOINTS, METRICS, RECIPE, Plan, latest, latest_model, prepare, step_folder
from train.stopping import sigterm_held_back

REPOSITORY = Path(__file__).parents[1]
LOOPBACK = "127.0.0.1"
GRACE = 5.0  # seconds that the processes of a group have to end by themselves, once there is nothing left to do
POLL = 0.2
LOOK = 1.0  # seconds between two looks whether all ranks are there
LEAVING = 10.0  # seconds between the ends of the first and the last rank of a machine, at most
LOST = -256  # in place of an exit code: the machine is gone; -1 to -64 are signals


@dataclass(frozen=True)
class Facts:
    """What the machines of a run know of each other: an address that all reach, a free port there, the devices."""

    name: str
    address: str
    port: int
    devices: tuple[int, ...]


@dataclass(frozen=True)
class Reached:
    """How far a run has come: its newest whole checkpoint, and the last loss."""

    step: int
    model: str
    loss: float


class Node:
    """One machine of a run, with one launcher on it at most.

    `own_folders` says that each machine has an output.folder of its own, and output.mirror is what they share.
    """

    def __init__(self, recipe: Recipe, *, address: str = LOOPBACK) -> None:
        self.recipe, self.address, self.own_folders = recipe, address, False
        self._process: subprocess.Popen[bytes] | None = None
        self._hold = Hold(recipe.output.folder)
        self._ranks: list[psutil.Process] = []
        self._looked = self._complete = 0.0

    def facts(self) -> Facts:
        """Where this machine is and what it has."""
        return Facts(socket.gethostname(), self.address, free_port(self.address), devices(self.recipe))

    def prepare(self) -> Plan:
        """Settle the run's folder; to be called on one of the machines that share it. Raises what train.run does.

        The folder is ours until `end`; RootBusy where somebody else has it.
        """
        output = self.recipe.output
        self._hold.take()
        mirror = Mirror(output.mirror, output.folder) if output.mirror is not None else None
        if mirror:
            mirror.fetch()
        plan = prepare(self.recipe)
        if mirror:
            mirror.catch_up(keep=output.keep)
        return plan

    def start(self, machines: Sequence[Facts], number: int) -> None:
        """Start the ranks of machine `number` of these, which is this one."""
        self._ranks = []
        # The file is nameless, so that nothing of it stays whatever happens.
        with tempfile.TemporaryFile() as hosts, sigterm_held_back():
            hosts.write(_host_file(machines).encode())
            hosts.flush()
            self._process = subprocess.Popen(  # noqa: S603  # the arguments are ours, no shell is between
                launcher_command(self.recipe, machines, number, f"/proc/self/fd/{hosts.fileno()}"),
                pass_fds=[hosts.fileno()],
                env=rank_environment(self.recipe, self.address, own_folders=self.own_folders),
                stdin=subprocess.PIPE,
                stdout=self._said(),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _said(self) -> int:
        """Where the ranks say what they have to say; standard output is for data."""
        return 2

    def poll(self) -> int | None:
        """The launcher's exit code, as Popen.poll gives it; None while it runs."""
        assert self._process
        code = self._process.poll()
        if code is None and time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            self._end_with_the_first(self._process.pid)
        return code

    def _end_with_the_first(self, launcher: int) -> None:
        """Once a rank is gone and the others do not follow, end them.

        The launcher sends them SIGTERM, one after the other, and waits half a minute for each: too long with eight that
        hang in NCCL, for one that is gone.
        """
        if not self._ranks:
            started = _grandchildren(launcher)
            self._ranks = started if len(started) == self.recipe.engine.ranks else []
        if all(_lives(each) for each in self._ranks):
            self._complete = time.monotonic()
        elif time.monotonic() - self._complete > LEAVING:
            self.begin_end()

    def ask_to_leave(self) -> None:
        """Have the ranks, of all machines, take the step to its end, write a checkpoint and leave."""
        assert self._process and self._process.stdin
        if self._process.stdin.closed:
            return
        with suppress(BrokenPipeError):  # they have just ended
            self._process.stdin.write(b"s")
            self._process.stdin.flush()

    def begin_end(self) -> None:
        """End the ranks without waiting for it: the end of their standard input ends them at once."""
        if self._process and self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self) -> None:
        """End the ranks and see that nothing of them is left."""
        self.begin_end()
        if self._process:
            end_group(self._process)
        self._hold.let_go()

    def reached(self) -> Reached:
        """How far the run has come; to be asked where `prepare` was called."""
        output = self.recipe.output
        if output.mirror is not None and (self.own_folders or output.place == output.mirror):
            step = Mirror(output.mirror, output.folder).latest().step
            model = f"{output.mirror}/{CHECKPOINTS}/{step_folder(Path(), step).name}"
        else:
            step = latest(output.folder / CHECKPOINTS).step
            model = str(latest_model(output.folder))
        lines = read_metrics(output.folder / METRICS)
        return Reached(step, model, lines[-1]["loss"] if lines else float("nan"))


def _host_file(machines: Sequence[Facts]) -> str:
    return "".join(f"node{number} slots={max(each.devices) + 1}\n" for number, each in enumerate(machines))


def launcher_command(recipe: Recipe, machines: Sequence[Facts], number: int, host_file: str) -> list[str]:
    """The command line of the DeepSpeed launcher of one machine."""
    chosen = (f"node{each}:{','.join(map(str, facts.devices))}" for each, facts in enumerate(machines))
    return [
        *(sys.executable, "-m", "deepspeed.launcher.runner"),
        *("--hostfile", host_file, "--include", "@".join(chosen)),
        *("--no_ssh", "--node_rank", str(number)),
        *("--master_addr", machines[0].address, "--master_port", str(machines[0].port)),
        *("--no_local_rank", "--log_level", "error"),
        *("--module", "train.worker", str(recipe.output.folder.absolute() / RECIPE)),
    ]


def devices(recipe: Recipe) -> tuple[int, ...]:
    """The numbers of this machine's devices for its ranks: of those lent to us, where we were lent some.

    Raises ConfigError where these are not named by numbers.
    """
    ranks = recipe.engine.ranks
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    if recipe.engine.resolved_device != "cuda" or not visible:
        return tuple(range(ranks))
    if not all(part.isdigit() for part in visible):
        # The launcher would put numbers in their place, which are other devices than those that we were lent.
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES={','.join(visible)}: DeepSpeed's launcher knows devices by their numbers only; "
            "write those (`nvidia-smi -L` lists both)"
        )
    return tuple(int(part) for part in visible[:ranks])


def rank_environment(recipe: Recipe, address: str, *, own_folders: bool) -> dict[str, str]:
    """The environment of the ranks of the machine with this address."""
    environment = dict(os.environ)
    cores = len(os.sched_getaffinity(0))
    threads = recipe.engine.threads or max(1, cores // recipe.engine.ranks)
    environment["OMP_NUM_THREADS"] = str(threads)
    environment["DS_ACCELERATOR"] = recipe.engine.resolved_device
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(REPOSITORY)]))
    environment["PYTHONSAFEPATH"] = "1"  # a folder `train` of the user's is not ours
    environment[WATCH_STDIN] = "1"
    if own_folders:
        environment[OWN_FOLDERS] = "1"
    if interface := _interface(address):
        # By itself gloo takes the one that the host's name leads to, often a loopback that no other machine reaches.
        environment.setdefault("GLOO_SOCKET_IFNAME", interface)
    return environment


def _interface(address: str) -> str | None:
    """The name of the network interface that has an address."""
    for name, found in psutil.net_if_addrs().items():
        if any(each.address == address for each in found):
            return name
    return None


def free_port(address: str = LOOPBACK) -> int:
    """A TCP port of an interface of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _grandchildren(pid: int) -> list[psutil.Process]:
    """The ranks of the launcher with this pid, which starts another process that starts them."""
    try:
        return [rank for child in psutil.Process(pid).children() for rank in child.children()]
    except psutil.NoSuchProcess:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything in its group: SIGTERM, and SIGKILL for what is left after some seconds."""
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


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # progress is for people
