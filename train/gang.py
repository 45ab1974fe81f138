"""A run on several machines of a Ray cluster, which start together or not at all.

    Gang (the driver) -> a placement group of engine.nodes bundles, each on a machine of its own
                      -> an actor on each: Member, a Node that the driver hears from

The driver asks every member a few times a second how its ranks are and what they said. A member that does not answer,
and a driver that does not ask, are taken for lost after SILENCE: ranks that wait for others would wait for very long.
"""

from __future__ import annotations

import functools
import os
import secrets
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sayso.code import check_same_code, code_hash
from sayso.engine import EngineSettings
from sayso.engine.cluster import Cluster
from sayso.errors import ConfigError, Crashed, InputError, SaysoError, WorkFailed
from sayso.storage import Storage
from train.hold import Hold
from train.mirror import Mirror
from train.node import GRACE, LOST, POLL, Facts, Node, Reached, say
from train.recipe import Recipe
from train.run import CHECKPOINTS, RECIPE, Plan, in_one_move, latest, refuse_missing_accelerators
from train.stopping import refuse_if_told
from train.weights import WORDS

SILENCE = 30.0  # seconds without an answer, or without being asked
_SEEN_WITHIN = 2.0  # seconds that a file takes at most to be seen by the machines that share its folder
_PATIENCE = 3.0  # seconds before it is worth saying that machines are waited for
_SETTLED = (RECIPE, WORDS)  # what train.run.prepare leaves in a run's folder


@contextmanager
def joined(recipe: Recipe) -> Iterator[None]:
    """Connected to the cluster that the recipe or the environment names. ConfigError where neither names one."""
    address = recipe.engine.address or os.environ.get("RAY_ADDRESS")
    if not address:
        raise ConfigError(
            f"engine.nodes {recipe.engine.nodes} needs a Ray cluster: send the command to one with "
            "`sayso submit -- train ...`, or name it with RAY_ADDRESS=HEAD:6379"
        )
    cluster = Cluster(EngineSettings(address=address))
    cluster.connect()
    try:
        yield
    finally:
        cluster.close()


def bundle(recipe: Recipe) -> dict[str, float]:
    """What Ray is asked for on each machine."""
    engine = recipe.engine
    gpus = {"GPU": float(engine.ranks)} if engine.device == "cuda" else {}
    return {"CPU": float(engine.cpus or engine.ranks), **gpus}


class Member(Node):
    """A Node as an actor: says what its ranks say when it is asked, and ends them when nobody asks any more."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe, address=ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        # Where a machine was lost, its process may have the folder for a while yet, or its file server think so.
        self._hold = Hold(recipe.output.folder, patient=True)
        self._lines: deque[bytes] = deque()
        self._asked = 0.0
        self._reader: threading.Thread | None = None

    def greet(self, driver_code: str) -> Facts:
        """What the others have to know of this machine; UserError where it runs other code than the driver."""
        check_same_code(driver_code)
        return self.facts()

    def leave_mark(self, place: str, name: str) -> None:
        """Put an object into a folder or under a URL, for other machines to look for."""
        Storage(place).put_bytes(b"", name)

    def sees_mark(self, place: str, name: str) -> bool:
        """Whether another machine's object is there, so that the place is one that both share."""
        deadline = time.monotonic() + _SEEN_WITHIN
        while not (found := Storage(place).exists(name)) and time.monotonic() < deadline:
            time.sleep(POLL)
        return found

    def remove_mark(self, place: str, name: str) -> None:
        """Take the object away again."""
        Storage(place).remove(name)

    def settled(self) -> dict[str, bytes]:
        """The files that `prepare` left in the run's folder."""
        return {name: (self.recipe.output.folder / name).read_bytes() for name in _SETTLED}

    def follow(self, settled: dict[str, bytes] | None) -> int:
        """Make ready what `prepare` made ready elsewhere; given its files, in a folder of our own.

        Returns the step of the newest checkpoint here.
        """
        refuse_missing_accelerators(self.recipe)
        output = self.recipe.output
        if settled is not None and output.mirror is not None:
            self.own_folders = True
            Mirror(output.mirror, output.folder).fetch()
            output.folder.mkdir(parents=True, exist_ok=True)
            for name, content in settled.items():
                in_one_move(output.folder / name, functools.partial(Path.write_bytes, data=content))
        return latest(output.folder / CHECKPOINTS).step

    def keep_own_folder(self) -> None:
        """The same for the machine that has called `prepare`."""
        self.own_folders = True

    def start(self, machines: Sequence[Facts], number: int) -> None:
        """Start the ranks, and threads that listen to them and to the driver."""
        super().start(machines, number)
        self._asked = time.monotonic()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        threading.Thread(target=self._end_without_driver, daemon=True).start()

    def _said(self) -> int:
        return subprocess.PIPE

    def _listen(self) -> None:
        assert self._process and self._process.stdout
        with self._process.stdout as stream:
            for line in stream:
                self._lines.append(line)

    def _end_without_driver(self) -> None:
        while self.poll() is None:
            if time.monotonic() - self._asked > SILENCE:
                super().end()
            time.sleep(1.0)

    def ask(self) -> tuple[bytes, int | None]:
        """What the ranks have said since the last call, and the launcher's exit code; None while it runs."""
        self._asked = time.monotonic()
        code = self.poll()
        if code is not None and self._reader:
            self._reader.join(POLL)  # for the last lines
        said = [self._lines.popleft() for _ in range(len(self._lines))]
        return b"".join(said), code

    def finish(self) -> bytes:
        """End the ranks; returns what they had still to say."""
        super().end()
        return self.ask()[0] if self._process else b""


class _Remote:
    """The ranks of one machine, as the driver sees them: an actor that is asked without being waited for."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.prefix = actor, ""
        self._code: int | None = None
        self._asked: Any = None
        self._since = 0.0

    def poll(self) -> int | None:
        """The launcher's exit code, LOST where the machine or the actor is; writes what the ranks have said."""
        if self._code is None:
            self._code = self._ask()
        return self._code

    def _ask(self) -> int | None:
        if self._asked is None:
            self._asked, self._since = self.actor.ask.remote(), time.monotonic()
        ready, _ = ray.wait([self._asked], timeout=0)
        if not ready:
            return LOST if time.monotonic() - self._since > SILENCE else None
        try:
            said, code = ray.get(self._asked)
        except RayError:
            return LOST
        self._asked = None
        self._write(said)
        found: int | None = code
        return found

    def _write(self, said: bytes) -> None:
        for line in said.decode(errors="replace").splitlines():
            say(f"{self.prefix}{line}")

    def ask_to_leave(self) -> None:
        """Have the ranks write a checkpoint and leave."""
        self.actor.ask_to_leave.remote()

    def begin_end(self) -> Any:
        """End the ranks without waiting for it; what to wait for."""
        return self.actor.finish.remote()

    def end(self, finishing: Any, deadline: float) -> None:
        """Wait until nothing is left of the ranks, then dismiss the actor."""
        patience = 0.0 if self._code == LOST else max(0.0, deadline - time.monotonic())
        with suppress(RayError):  # lost, or too late: the ranks end when they see that the actor has
            self._write(ray.get(finishing, timeout=patience))
        ray.kill(self.actor)


class Gang:
    """engine.nodes machines of the cluster that this process has joined."""

    elsewhere = True

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = _device_settled(recipe)
        self._count = recipe.engine.nodes or 1
        self._caught: Sequence[int] = ()
        self._group: PlacementGroup | None = None
        self._facts: list[Facts] = []
        self.names: list[str] = []
        self.nodes: list[_Remote] = []

    def gather(self, caught: Sequence[int]) -> None:
        """Wait until all machines are there at once. WorkFailed where they are not within engine.node_limit."""
        self._caught = caught
        needs = bundle(self._recipe)
        self._group = placement_group([needs] * self._count, strategy="STRICT_SPREAD")
        self._wait_for_machines(self._group)
        member = ray.remote(Member)
        for number in range(self._count):
            place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=number)
            actor = member.options(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), scheduling_strategy=place)
            self.nodes.append(_Remote(actor.remote(self._recipe)))
        self._facts = self._all("greet", code_hash())
        self.names = [f"node {number} ({facts.name})" for number, facts in enumerate(self._facts)]
        for node, name in list(zip(self.nodes, self.names, strict=True))[1:]:
            node.prefix = f"{name}: "

    def _wait_for_machines(self, group: PlacementGroup) -> None:
        limit, began, told = self._recipe.engine.node_limit, time.monotonic(), False
        wanted = f"{self._count} machines at once, with {_readable(bundle(self._recipe))} free on each"
        while not group.wait(timeout_seconds=1):
            refuse_if_told(self._caught)
            waited = time.monotonic() - began
            if waited > limit:
                raise WorkFailed(
                    f"the cluster did not have {wanted}, within {limit:.0f} s: let it grow, ask for less "
                    "(engine.nodes, engine.cpus), or wait longer (engine.node_limit); the same command goes on"
                )
            if waited > _PATIENCE and not told:
                told = True
                say(f"waiting for {wanted}, for {limit:.0f} s at most (engine.node_limit)")

    def prepare(self) -> Plan:
        """Settle the run's folder, which the machines share, or the folders, where output.mirror is what they share."""
        folder, mirror = self._recipe.output.folder, self._recipe.output.mirror
        shared = self._share(str(folder))
        if not shared and (mirror is None or not self._share(mirror)):
            raise InputError(
                f"output.folder {folder} is not the same folder on {' and '.join(self.names)}: give one on a file "
                "system that they share, or output.mirror=URL, which each of them reads and writes"
            )
        plan: Plan = self._first("prepare")
        settled = None if shared else self._first("settled")
        steps = {min(step, plan.total) for step in self._others("follow", settled)}
        if steps - {plan.start}:
            raise InputError(
                f"{folder} is at step {plan.start} on {self.names[0]} and at {', '.join(map(str, steps))} on others; "
                "choose another output.folder, or bring the newest one into output.mirror with a start on its machine"
            )
        if not shared:
            self._first("keep_own_folder")
        return plan

    def _share(self, place: str) -> bool:
        """Whether what the first machine writes there is seen by all."""
        mark = f"seen-by-{secrets.token_hex(8)}"
        self._first("leave_mark", place, mark)
        try:
            return all(self._others("sees_mark", place, mark))
        finally:
            self._first("remove_mark", place, mark)

    def start(self) -> None:
        """Start the ranks on all machines."""
        self._results([node.actor.start.remote(self._facts, number) for number, node in enumerate(self.nodes)])

    def reached(self) -> Reached:
        """How far the run has come, by the first machine."""
        found: Reached = self._first("reached")
        return found

    def release(self) -> None:
        """End all ranks and give the machines back."""
        finishing = [(node, node.begin_end()) for node in self.nodes]
        deadline = time.monotonic() + 2 * GRACE + 5.0
        for node, what in finishing:
            node.end(what, deadline)
        if self._group:
            remove_placement_group(self._group)
        self._group, self.nodes, self.names = None, [], []

    def _all(self, call: str, *arguments: Any) -> list[Any]:
        return self._results([getattr(node.actor, call).remote(*arguments) for node in self.nodes])

    def _others(self, call: str, *arguments: Any) -> list[Any]:
        return self._results([getattr(node.actor, call).remote(*arguments) for node in self.nodes[1:]])

    def _first(self, call: str, *arguments: Any) -> Any:
        return self._results([getattr(self.nodes[0].actor, call).remote(*arguments)])[0]

    def _results(self, calls: list[Any]) -> list[Any]:
        """What the calls return. Raises what one of them raised, Crashed where a machine is lost meanwhile."""
        left = calls
        while left:
            ready, left = ray.wait(left, timeout=POLL)
            try:
                ray.get(ready)
            except RayTaskError as error:
                if isinstance(error.cause, SaysoError):
                    raise error.cause from None
                raise
            except RayError as error:
                raise Crashed("a machine was lost before the ranks had started") from error
            refuse_if_told(self._caught)
        return ray.get(calls)


def _device_settled(recipe: Recipe) -> Recipe:
    """The recipe with a device: what `auto` stands for on the machines, not on this one."""
    if recipe.engine.device != "auto":
        return recipe
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    has_gpus = any(node["Alive"] and node["Resources"].get("GPU", 0) >= 1 for node in nodes)
    device = "cuda" if has_gpus else "cpu"
    say(f"engine.device auto: {device}, for {'there are' if has_gpus else 'there are no'} GPUs in the cluster now")
    engine = recipe.engine.model_copy(update={"device": device})
    return recipe.model_copy(update={"engine": engine})


def _readable(needs: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}s" for kind, amount in needs.items())
