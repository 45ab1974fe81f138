"""The workers of a run: batches in flight, time limits, deaths, and a size that follows the work and the cluster.

A worker takes batches of any stage that has its needs (cpus, gpus, memory), so the stages of a run share the
machines without processes being started and ended for each. It works in order: the first batch in its queue is the
one being worked on, and the time limit runs for that. If the process dies, those behind it go back untouched. A
batch of several rows goes back too, to be tried one by one: only a row that was alone is blamed.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from sayso.code import code_hash
from sayso.engine.cluster import Cluster, Plan
from sayso.engine.lane import Batch
from sayso.engine.outcome import OUT_OF_MEMORY, TIMEOUT, WORKER_DIED, Failed, Fatal, Outcome, bug
from sayso.engine.settings import EngineSettings
from sayso.engine.worker import Hello, Report, Worker
from sayso.errors import UserError, WorkFailed
from sayso.rows import Row
from sayso.stage import Resources, Stage

_DEATHS_AT_OPEN = 3
_DEATHS_AT_START = 10
# A worker with nothing to do is dismissed, so that an autoscaler can take its node away.
_IDLE_SECONDS = 30.0
# A worker that has waited so long for its place is not merely starting.
_LATE_SECONDS = 5.0
_GIB = 2**30


@dataclass(frozen=True)
class Settled:
    """A row and what became of it."""

    stage: str
    row: Row
    outcome: Outcome


@dataclass(frozen=True)
class Timed:
    """How long a batch took."""

    stage: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class Returned:
    """Rows that go back; `alone` where one of them took its worker down and nobody knows which."""

    stage: str
    rows: list[Row]
    alone: bool


Event = Settled | Timed | Returned


@dataclass
class _Call:
    """A call on a worker: a batch of a stage, the opening of a stage (no batch), or the greeting (no stage)."""

    ref: Any
    limit: float
    stage: str | None = None
    batch: Batch | None = None


@dataclass
class _Member:
    needs: Resources
    actor: Any
    calls: deque[_Call] = field(default_factory=deque)
    head_since: float = field(default_factory=time.monotonic)
    hello: Hello | None = None
    opened: set[str] = field(default_factory=set)
    rows: int = 0
    leaving: bool = False

    @property
    def node(self) -> str | None:
        """The id of its node, once it has come up."""
        return self.hello.node_id if self.hello else None

    @property
    def batches(self) -> int:
        return sum(1 for call in self.calls if call.batch)

    def overdue(self, now: float) -> bool:
        return bool(self.calls) and now - self.head_since > self.calls[0].limit

    def idle_for(self, now: float) -> float:
        return now - self.head_since if self.hello and not self.calls else 0.0


class Pool:
    """The workers of a run."""

    def __init__(self, stages: Mapping[str, Stage[Any, Any]], cluster: Cluster, settings: EngineSettings) -> None:
        self._stages = stages
        self._refs = {name: ray.put(stage) for name, stage in stages.items()}
        self._cluster = cluster
        self._settings = settings
        self._code = code_hash()
        self._members: list[_Member] = []
        self._deaths_at_open: Counter[str] = Counter()
        self._deaths_at_start = 0
        self._died_at_start = 0.0
        self._waiting: dict[Resources, float] = {}
        """Kinds of which no worker is up though no other is in their way, and since when."""

    def workers(self, needs: Resources) -> int:
        """Workers that have come up."""
        return sum(1 for member in self._members if member.needs == needs and member.hello)

    def has_room(self, needs: Resources) -> bool:
        """Whether a worker would take a batch now."""
        return any(self._free(member, needs) for member in self._members)

    def _free(self, member: _Member, needs: Resources) -> bool:
        if member.needs != needs or member.leaving or not member.hello:
            return False
        # Were the next one begun, and to take the worker down, the result of this one could be lost and it be blamed.
        if any(call.batch and call.batch.alone for call in member.calls):
            return False
        return member.batches < self._settings.queue_depth and member.rows < self._settings.worker_rows

    def fit(self, wanted: Mapping[Resources, int], pausing: Collection[Resources] = ()) -> None:
        """Hire and dismiss, so that the pool follows the rows that want workers and what the cluster has.

        Kinds that are `pausing`, because all their stages wait for others, get no new workers and make room first.
        """
        now = time.monotonic()
        for member in self._members:
            if member.idle_for(now) > _IDLE_SECONDS or member.rows >= self._settings.worker_rows:
                member.leaving = True
        wanted = self._in_order(wanted, pausing)
        self._note_waiting(wanted, now)
        plan = self._cluster.plan(wanted, self._settings.workers)
        short = {needs for needs, held in plan.held.items() if self.workers(needs) < held}
        crowded = self._make_room(plan, short, now)
        for needs in {*plan.held, *(member.needs for member in self._members)}:
            held = plan.held.get(needs, 0)
            staying = [member for member in self._members if member.needs == needs and not member.leaving]
            up = [member for member in staying if member.hello]
            # More than the cluster holds is asked for only while everybody has what it holds.
            most = held if short else plan.asked.get(needs, 0)
            self._members += [self._hire(needs) for _ in range(most - len(staying))]
            _leave([member for member in staying if not member.hello], len(staying) - most)
            if short - {needs}:
                _leave(up, len(up) - held, crowded)
        for member in [member for member in self._members if member.leaving and not member.batches]:
            self._dismiss(member)

    def _in_order(self, wanted: Mapping[Resources, int], pausing: Collection[Resources]) -> dict[Resources, int]:
        """Which kinds go first where not all fit: those that are up, until they have nothing to do, for starting takes
        long; those that pause last, with no more workers than they have.
        """
        up = Counter(member.needs for member in self._members if member.hello and not member.leaving)
        most = {needs: min(rows, up[needs]) if needs in pausing else rows for needs, rows in wanted.items()}
        return dict(sorted(most.items(), key=lambda item: (item[0] in pausing, not up[item[0]])))

    def _note_waiting(self, wanted: Mapping[Resources, int], now: float) -> None:
        busy = any(member.hello for member in self._members)
        missing = [needs for needs, rows in wanted.items() if rows and not self.workers(needs)]
        # While others are at work on the only nodes for it, a kind waits for its turn, not for a node.
        waiting = [needs for needs in missing if not (busy and self._cluster.could_hold(needs))]
        self._waiting = {needs: self._waiting.get(needs, now) for needs in waiting}

    def _make_room(self, plan: Plan, short: Collection[Resources], now: float) -> set[str]:
        """The nodes where a kind is short of workers that are planned there.

        Where one of it has waited for long, the others that are there beyond the plan leave: they may have come up
        before there was another node for them.
        """
        late = {each.needs for each in self._members if not each.hello and now - each.head_since > _LATE_SECONDS}
        on_node: dict[str | None, list[_Member]] = {}
        for member in self._members if short else ():
            if not member.leaving:
                on_node.setdefault(member.node, []).append(member)
        crowded = set()
        for node, planned in plan.by_node.items():
            here = on_node.get(node, [])
            number = Counter(member.needs for member in here)
            lacking = {needs for needs in short if number[needs] < planned[needs]}
            if lacking:
                crowded.add(node)
            for needs in number if lacking & late else ():
                _leave([member for member in here if member.needs == needs], number[needs] - planned[needs])
        return crowded

    def _hire(self, needs: Resources) -> _Member:
        memory_bytes = int(self._settings.worker_memory_gib * _GIB)
        actor_class = ray.remote(Worker).options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, memory=needs.memory_bytes or None, max_restarts=0
        )
        # CUDA maps far more private memory than it uses; there the cap only replaces a worker that has grown.
        member = _Member(needs, actor_class.remote(memory_bytes, capped=not needs.gpus))
        # It may wait for its node as long as the cluster takes to get one.
        member.calls.append(_Call(member.actor.greet.remote(self._code), limit=float("inf")))
        return member

    def offer(self, stage: str, batch: Batch) -> bool:
        """Hand a batch to the worker with the least before it; False where none takes more."""
        needs = self._stages[stage].resources
        free = [member for member in self._members if self._free(member, needs)]
        if not free:
            return False
        member = min(free, key=lambda each: (each.batches, stage not in each.opened))
        if stage not in member.opened:
            member.opened.add(stage)
            self._call(member, _Call(member.actor.open.remote(self._refs[stage]), self._settings.open_limit, stage))
        ref = member.actor.work.remote(stage, batch.rows)
        self._call(member, _Call(ref, batch.limit, stage, batch))
        member.rows += len(batch.rows)
        return True

    def _call(self, member: _Member, call: _Call) -> None:
        if not member.calls:
            member.head_since = time.monotonic()
        member.calls.append(call)

    def collect(self, timeout: float) -> list[Event]:
        """What happened since the last call, waiting at most `timeout` seconds for the first.

        Raises WorkFailed where workers die while they open a stage, and what keeps a stage from being opened.
        """
        heads = [member.calls[0].ref for member in self._members if member.calls]
        if not heads:
            time.sleep(timeout)
            return []
        ray.wait(heads, num_returns=1, timeout=timeout)
        # Asked at once for all: with hundreds of workers, asking one by one takes most of the time.
        ready = set(ray.wait(heads, num_returns=len(heads), timeout=0)[0])
        now = time.monotonic()
        events: list[Event] = []
        for member in list(self._members):
            affected = member.calls and (member.calls[0].ref in ready or member.overdue(now))
            if affected and not self._drain(member, events):
                self._dismiss(member)
                events.extend(self._rest_of(member))
        return events

    def _drain(self, member: _Member, events: list[Event]) -> bool:
        """Take the finished calls off a member's queue; False where the member is lost."""
        while member.calls:
            call = member.calls[0]
            ready, _ = ray.wait([call.ref], timeout=0)
            if not ready:
                if member.overdue(time.monotonic()):
                    late = Failed("retry", TIMEOUT, f"took longer than its {call.limit:.0f} s")
                    self._blame_unless_lost(member, late, events)
                    return False
                return True
            try:
                result = ray.get(call.ref)
            except RayTaskError as error:
                result = bug(error)
            except RayError as error:
                self._died(member, error, events)
                return False
            member.calls.popleft()
            member.head_since = time.monotonic()
            self._answered(member, call, result, events)
        return True

    def _answered(self, member: _Member, call: _Call, result: Any, events: list[Event]) -> None:
        match result:
            case Hello():
                member.hello = result
                self._deaths_at_start = 0
            case Report() if call.batch and call.stage:
                rows = call.batch.rows
                events.extend(
                    Settled(call.stage, row, outcome) for row, outcome in zip(rows, result.outcomes, strict=True)
                )
                events.append(Timed(call.stage, len(rows), result.seconds))
                member.leaving = member.leaving or result.spent
            case Fatal():
                raise result.error
            case Failed() if call.batch and call.stage:
                # The rows or their results did not pass through Ray: a fault in the code, of each of them.
                events.extend(Settled(call.stage, row, result) for row in call.batch.rows)
            case Failed():
                raise WorkFailed(f"{call.stage or 'a worker'} could not be opened: {result.message}")
            case None if call.stage:
                del self._deaths_at_open[call.stage]

    def _died(self, member: _Member, error: RayError, events: list[Event]) -> None:
        if member.hello is None:
            self._died_starting(member, error)
        elif isinstance(error, OutOfMemoryError):
            self._blame(member, Failed("retry", OUT_OF_MEMORY, str(error)), events)
        elif isinstance(error, RayActorError):
            self._blame_unless_lost(member, Failed("retry", WORKER_DIED, str(error)), events)

    def _died_starting(self, member: _Member, error: RayError) -> None:
        # Those that were started together may be lost together, with their node: that counts once.
        if member.head_since > self._died_at_start:
            self._deaths_at_start += 1
            self._died_at_start = time.monotonic()
        if self._deaths_at_start >= _DEATHS_AT_START:
            raise WorkFailed(f"workers die while they start: {error}")

    def _blame_unless_lost(self, member: _Member, failure: Failed, events: list[Event]) -> None:
        """A node that is lost is no fault of a row: all that was there goes back."""
        assert member.hello
        if not self._cluster.node_is_lost(member.hello.node_id):
            self._blame(member, failure, events)

    def _blame(self, member: _Member, failure: Failed, events: list[Event]) -> None:
        """Blame the batch that was being worked on: a row that was alone has failed, several are tried one by one."""
        call = member.calls.popleft()
        if call.batch and call.stage and len(call.batch.rows) == 1:
            events.append(Settled(call.stage, call.batch.rows[0], failure))
        elif call.batch and call.stage:
            events.append(Returned(call.stage, call.batch.rows, alone=True))
        elif call.stage:
            self._deaths_at_open[call.stage] += 1
            if self._deaths_at_open[call.stage] >= _DEATHS_AT_OPEN:
                raise WorkFailed(f"workers die while they open {call.stage}: {failure.message}")

    def _rest_of(self, member: _Member) -> Iterator[Event]:
        for call in member.calls:
            if call.batch and call.stage:
                yield Returned(call.stage, call.batch.rows, alone=False)

    def _dismiss(self, member: _Member) -> None:
        ray.kill(member.actor)
        self._members.remove(member)

    def check_nodes(self, needs: Resources) -> None:
        """UserError where a kind has waited for a node longer than is allowed."""
        limit = self._settings.node_limit
        if time.monotonic() - self._waiting.get(needs, time.monotonic()) > limit:
            raise UserError(
                f"no node gave {needs.cpus:g} cpus and {needs.gpus:g} gpus for a worker within {limit:.0f} s: "
                "let the cluster grow, or wait longer (engine.node_limit)"
            )

    def close(self) -> None:
        """Kill all workers; what they were working on is simply not done."""
        for member in self._members:
            ray.kill(member.actor)
        self._members = []


def _leave(members: list[_Member], number: int, crowded: Collection[str] = ()) -> None:
    """Let so many go: those on crowded nodes first, of them those with the least before them, of those the newest."""

    def order(member: _Member) -> tuple[bool, int, float]:
        return member.node not in crowded, member.batches, -member.head_since

    for member in sorted(members, key=order)[: max(0, number)]:
        member.leaving = True
