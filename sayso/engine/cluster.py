"""Joining a Ray cluster, or starting Ray on this machine for the length of a run.

Ray takes seconds to import and to start, so neither happens before there is a row to work on.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sayso.engine.join import join
from sayso.engine.settings import EngineSettings
from sayso.errors import UserError
from sayso.stage import Resources

# Only keys and rows travel through Ray, never media: its object store can be small.
_OBJECT_STORE_BYTES = 256 * 2**20
# A raylet that does not take a connection for so long is taken for lost.
_ANSWER_SECONDS = 2.0


class Cluster:
    """A connection to Ray that is made when it is first needed. A cluster that ran before goes on running."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._ours = False
        self._joined = False

    def connect(self) -> None:
        """Join or start Ray, if this process is not connected yet. UserError where no cluster answers.

        Joined is the cluster of the settings, else that of RAY_ADDRESS, which Ray sets in a submitted job.
        """
        # Ray reads these when it is imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        address = self._settings.address or os.environ.get("RAY_ADDRESS")
        self._joined = bool(address) and address != "local"
        if ray.is_initialized():
            return
        if address and self._joined:
            join(address)
        else:
            with _deaf_to_ctrl_c():
                ray.init(
                    address="local",  # never somebody's cluster that happens to run on this machine
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    object_store_memory=_OBJECT_STORE_BYTES,
                )
        self._ours = True

    def close(self) -> None:
        """Leave the cluster, or end the Ray that was started here."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False

    def plan(self, wanted: Mapping[Resources, int], most: int | None) -> Plan:
        """How many workers of each kind the cluster can hold now, and how many to ask it for.

        Where not all fit, the kinds named first go first. A cluster that was joined may have an autoscaler, which acts
        on what is asked for and not there: up to as many workers again as it holds. UserError where a Ray of our own
        cannot hold a single one.
        """
        nodes = [node for node in self._nodes() if node["Alive"]]
        placed = place([node["Resources"] for node in nodes], wanted, most)
        held = {needs: sum(node[needs] for node in placed) for needs in wanted}
        if not self._joined:
            self._refuse_impossible(wanted)
            asked = held
        else:
            asked = _ask_for_more(held, wanted, most)
        return Plan(held, asked, {node["NodeID"]: kinds for node, kinds in zip(nodes, placed, strict=True)})

    def _refuse_impossible(self, wanted: Mapping[Resources, int]) -> None:
        for needs, rows in wanted.items():
            if rows and not self.could_hold(needs):
                alive = [node["Resources"] for node in self._nodes() if node["Alive"]]
                raise UserError(
                    f"no node has {needs.cpus:g} cpus and {needs.gpus:g} gpus for a worker; this machine has "
                    f"{ {name: alive[0].get(name, 0) for name in ('CPU', 'GPU')} if alive else 'none' }"
                )

    def could_hold(self, needs: Resources) -> bool:
        """Whether a node that nothing else runs on could hold a worker of these needs."""
        return any(_fits(needs, node["Resources"]) for node in self._nodes() if node["Alive"])

    def node_is_lost(self, node_id: str) -> bool:
        """Whether a node is gone: nobody answers where its raylet listened, which is known long before Ray says so."""
        node = next((node for node in self._nodes() if node["NodeID"] == node_id), None)
        if node is None or not node["Alive"]:
            return True
        try:
            place = (node["NodeManagerAddress"], node["NodeManagerPort"])
            socket.create_connection(place, timeout=_ANSWER_SECONDS).close()
        except OSError:
            return True
        return False

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return ray.nodes()  # type: ignore[no-any-return,no-untyped-call]


@dataclass(frozen=True)
class Plan:
    """How many workers of each kind the nodes hold, how many to ask for, and which node (by its id) holds which."""

    held: dict[Resources, int]
    asked: dict[Resources, int]
    by_node: dict[str, Counter[Resources]]


def place(
    nodes: Sequence[Mapping[str, float]], wanted: Mapping[Resources, int], most: int | None
) -> list[Counter[Resources]]:
    """Which workers fit onto which of the nodes, the kinds taking turns; those with GPUs last, as Ray does."""
    left = [dict(node) for node in nodes]
    placed: list[Counter[Resources]] = [Counter() for _ in nodes]
    order = sorted(range(len(nodes)), key=lambda index: nodes[index].get("GPU", 0.0))
    # A node that has no room for a kind never has again: each kind goes through them once.
    roomy = {needs: deque(order) for needs in wanted}
    asking = deque(needs for needs, rows in wanted.items() if rows > 0)
    number: Counter[Resources] = Counter()
    while asking and (most is None or number.total() < most):
        needs = asking.popleft()
        while roomy[needs] and not _fits(needs, left[roomy[needs][0]]):
            roomy[needs].popleft()
        if not roomy[needs]:
            continue
        index = roomy[needs][0]
        for name, amount in _amounts(needs).items():
            left[index][name] -= amount
        placed[index][needs] += 1
        number[needs] += 1
        if number[needs] < wanted[needs]:
            asking.append(needs)
    return placed


def _ask_for_more(
    held: Mapping[Resources, int], wanted: Mapping[Resources, int], most: int | None
) -> dict[Resources, int]:
    free = None if most is None else most - sum(held.values())
    asked = {}
    for needs, count in held.items():
        more = min(wanted[needs] - count, max(1, count))
        if free is not None:
            more = min(more, free)
            free -= more
        asked[needs] = count + more
    return asked


def _amounts(needs: Resources) -> dict[str, float]:
    amounts = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": float(needs.memory_bytes)}
    return {name: amount for name, amount in amounts.items() if amount}


def _fits(needs: Resources, node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in _amounts(needs).items())


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started within do not hear SIGINT, for a terminal sends it to the whole group.

    Only the driver is to hear it: it commits what is settled and then ends Ray in order. A signal that comes
    meanwhile is delivered at the end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
