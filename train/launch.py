"""Start a recipe's ranks on this machine or on several, watch them, end them, and start them again where they crashed.

    launch -> Machines: this one (Here), or some of a Ray cluster (train/gang.py)
           -> a Node on each (train/node.py) -> its DeepSpeed launcher -> one train.worker a rank

Ranks cannot go on without each other: once one of them ends too soon, all are ended, on all machines.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from sayso.errors import Crashed, Preempted, StorageError, WorkFailed
from train.distributed import GAVE_UP, RESUME
from train.node import LOST, POLL, Node, Reached, say
from train.recipe import Recipe, load_recipe
from train.run import Plan
from train.stopping import at_once, interrupted_at_once, refuse_if_stopped, refuse_if_told, signals_caught

TOGETHER = 30.0  # seconds between the ends of the first and the last machine's ranks, at most
HOPELESS = (2, GAVE_UP)  # exit codes after which another start would end as this one did


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


class Ranks(Protocol):
    """The ranks of one machine; see Node for what the calls do. None of them waits but `end`."""

    def poll(self) -> int | None: ...  # noqa: D102
    def ask_to_leave(self) -> None: ...  # noqa: D102


class Machines(Protocol):
    """Where a run takes place. `elsewhere` says whether others can take the place of machines that are taken away."""

    elsewhere: bool

    @property
    def names(self) -> Sequence[str]:
        """The machines' names, for people."""

    @property
    def nodes(self) -> Sequence[Ranks]:
        """The ranks of each machine."""

    def gather(self, caught: Sequence[int]) -> None:
        """Wait until the machines are there; what is caught meanwhile ends the waiting."""

    def prepare(self) -> Plan:
        """Settle the run's folder, or folders."""

    def start(self) -> None:
        """Start the ranks on all machines."""

    def reached(self) -> Reached:
        """How far the run has come."""

    def release(self) -> None:
        """End all ranks, see that nothing of them is left, and give the machines back."""


class Here:
    """This machine alone."""

    elsewhere = False
    names: Sequence[str] = ("this machine",)

    def __init__(self, recipe: Recipe) -> None:
        self._node = Node(recipe)
        self.nodes = (self._node,)

    def gather(self, caught: Sequence[int]) -> None:
        """It is here already."""
        refuse_if_told(caught)

    def prepare(self) -> Plan:
        """Settle the run's folder."""
        with interrupted_at_once():
            return self._node.prepare()

    def start(self) -> None:
        """Start the ranks."""
        self._node.start([self._node.facts()], 0)

    def reached(self) -> Reached:
        """How far the run has come."""
        return self._node.reached()

    def release(self) -> None:
        """End the ranks."""
        self._node.end()


def launch(path_or_name: str | Path, overrides: Sequence[str] = ()) -> TrainResult:
    """Train a recipe; a run that was stopped goes on, one that is finished ends at once.

    Raises ConfigError or InputError before anything starts, WorkFailed when the ranks fail and another start would not
    help or none is left, Stopped when they are stopped, and Preempted of it when that was by SIGTERM.
    """
    recipe = load_recipe(path_or_name, list(overrides))
    if recipe.engine.nodes is None:
        return run_on(Here(recipe), recipe)
    from train.gang import Gang, joined  # Ray takes seconds to import

    with joined(recipe):
        return run_on(Gang(recipe), recipe)


def run_on(machines: Machines, recipe: Recipe) -> TrainResult:
    """Run a recipe on these machines to its end, over as many restarts as it allows."""
    began, most = time.monotonic(), recipe.engine.restarts
    with signals_caught() as caught:
        for restarts in range(most + 1):
            try:
                plan, reached = _attempt(machines, recipe, caught)
            except (Crashed, StorageError) as error:
                if isinstance(error, StorageError) and not restarts:
                    raise  # nothing has begun yet
                again = f"going on from the last checkpoint, restart {restarts + 1} of {most}"
                say(f"{error}; {again if restarts < most else 'no restart is left'}")
            else:
                return TrainResult(
                    folder=recipe.output.place,
                    model=reached.model,
                    steps=plan.total,
                    started_from=plan.start,
                    clips=plan.clips,
                    loss=reached.loss,
                    seconds=round(time.monotonic() - began, 1),
                )
    raise WorkFailed(
        f"training crashed {most + 1} times (engine.restarts {most}); what the ranks said stands above, "
        "and the same command goes on from the last checkpoint"
    )


def _attempt(machines: Machines, recipe: Recipe, caught: list[int]) -> tuple[Plan, Reached]:
    """One start of the ranks. Raises Crashed where another may help."""
    try:
        machines.gather(caught)
        plan = machines.prepare()
        if plan.finished:
            say(f"{recipe.output.place}: already trained, {plan.total} of {plan.total} steps")
            return plan, machines.reached()
        if plan.start:
            say(f"{recipe.output.place}: going on after step {plan.start} of {plan.total}")
        machines.start()
        codes = watch(machines.nodes, caught)
        judge(codes, caught, machines)
        reached = machines.reached()
        if reached.step < plan.total:  # all launchers were killed, each of which then ends with code 0
            raise Crashed(f"the ranks ended after step {reached.step} of {plan.total} at the latest")
        return plan, reached
    finally:
        machines.release()


def watch(nodes: Sequence[Ranks], caught: Sequence[int]) -> list[int | None]:
    """Wait until all ranks have ended, some too soon, or a signal wants them to end at once; their exit codes then.

    SIGTERM, as schedulers and spot instances send it, is passed on: the ranks take the step to its end, write a
    checkpoint and leave. Whoever sent it decides how long that may take, and kills us when it took too long.
    """
    told, all_running = False, time.monotonic()
    while True:
        codes = [node.poll() for node in nodes]
        if None not in codes or any(code not in (None, 0, RESUME) for code in codes) or at_once(caught):
            return codes
        if all(code is None for code in codes):
            all_running = time.monotonic()
        elif time.monotonic() - all_running > TOGETHER:
            return codes  # a launcher that is killed ends with code 0, and the others wait for its ranks
        if caught and not told:
            told = True
            say("SIGTERM: writing a checkpoint after this step; a second one, or Ctrl-C, ends at once")
            for node in nodes:
                node.ask_to_leave()
        time.sleep(POLL)


def judge(codes: Sequence[int | None], caught: Sequence[int], machines: Machines) -> None:
    """Raise what follows from how ranks ended: Crashed where another start may help, nothing where all went well."""
    refuse_if_stopped(caught)
    if all(code == 0 for code in codes):
        return
    for code in codes:
        if code in HOPELESS:
            raise WorkFailed(f"training ended with code {code}; what the ranks said stands above")
    preempted = all(code in (None, 0, RESUME) for code in codes)
    if caught or (preempted and not machines.elsewhere):
        raise Preempted("training was stopped by SIGTERM; the same command goes on from the last checkpoint")
    ended = {name: code for name, code in zip(machines.names, codes, strict=True) if code is not None}
    too_soon = {name: code for name, code in ended.items() if code} or ended
    raise Crashed(f"training was cut short: {', '.join(f'{name} {_ending(code)}' for name, code in too_soon.items())}")


def _ending(code: int) -> str:
    special = {LOST: "was lost", RESUME: "was told to leave", 0: "ended long before the others"}
    return special.get(code, f"ended with code {code}")
