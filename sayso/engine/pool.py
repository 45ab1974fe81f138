"""The actors of a stage: rows in flight, time limits, deaths.

An actor works in order, so the first row in its queue is the one being worked on: the time limit runs for it,
and if the process dies it alone is counted as tried. Those behind it go back untouched.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from sayso.engine.outcome import TIMEOUT, WORKER_DIED, Failed, Outcome, bug
from sayso.engine.settings import EngineSettings
from sayso.engine.worker import Worker
from sayso.errors import WorkFailed
from sayso.rows import Row
from sayso.stage import Stage

_DEATHS_AT_OPEN = 3


@dataclass
class _Job:
    """A call on an actor: a row, or the opening of the stage where `row` is None."""

    row: Row | None
    limit: float
    ref: Any


@dataclass
class _Member:
    actor: Any
    queue: deque[_Job] = field(default_factory=deque)
    head_since: float = field(default_factory=time.monotonic)

    def overdue(self, now: float) -> bool:
        return bool(self.queue) and now - self.head_since > self.queue[0].limit


class Pool:
    """A fixed number of actors of one stage."""

    def __init__(self, stage: Stage[Any, Any], size: int, settings: EngineSettings) -> None:
        self._stage = stage
        self._settings = settings
        needs = stage.resources
        self._actor_class = ray.remote(Worker).options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, memory=needs.memory_bytes or None, max_restarts=0
        )
        self._stage_ref = ray.put(stage)
        self._deaths_at_open = 0
        self._returned: deque[Row] = deque()
        self._members = [self._hire() for _ in range(size)]

    def _hire(self) -> _Member:
        member = _Member(self._actor_class.remote(self._stage_ref))
        member.queue.append(_Job(None, self._settings.open_limit, member.actor.open.remote()))
        return member

    @property
    def in_flight(self) -> int:
        """Rows handed out and not yet settled."""
        return sum(1 for member in self._members for job in member.queue if job.row is not None)

    def take_back(self) -> Row | None:
        """A row whose worker died before it was begun, if there is one; to be handed out again."""
        return self._returned.popleft() if self._returned else None

    def offer(self, row: Row) -> bool:
        """Hand a row to the actor with the shortest queue; False where all are full."""
        member = min(self._members, key=lambda each: len(each.queue))
        if len(member.queue) >= self._settings.queue_depth:
            return False
        if not member.queue:
            member.head_since = time.monotonic()
        member.queue.append(_Job(row, self._stage.time_limit(row), member.actor.work.remote(row)))
        return True

    def collect(self, timeout: float) -> list[tuple[Row, Outcome]]:
        """What was settled since the last call, waiting at most `timeout` seconds for the first.

        Raises WorkFailed where workers cannot even open the stage.
        """
        jobs = [job.ref for member in self._members for job in member.queue]
        if jobs:
            ray.wait(jobs, num_returns=1, timeout=timeout)
        settled: list[tuple[Row, Outcome]] = []
        for index, member in enumerate(self._members):
            if self._drain(member, settled):
                continue
            self._dismiss(member)
            self._members[index] = self._hire()
        return settled

    def _drain(self, member: _Member, settled: list[tuple[Row, Outcome]]) -> bool:
        """Take the finished jobs off a member's queue; False where the member is lost."""
        while member.queue:
            job = member.queue[0]
            ready, _ = ray.wait([job.ref], timeout=0)
            if not ready:
                if member.overdue(time.monotonic()):
                    limit = f"took longer than its {job.limit:.0f} s"
                    self._blame(member.queue.popleft(), Failed("retry", TIMEOUT, limit), settled)
                    return False
                return True
            member.queue.popleft()
            member.head_since = time.monotonic()
            try:
                result = ray.get(job.ref)
            except RayTaskError as error:
                result = bug(error)
            except RayActorError as error:
                self._blame(job, Failed("retry", WORKER_DIED, str(error)), settled)
                return False
            if job.row is not None:
                settled.append((job.row, result))
            elif result is not None:
                raise _opening_failed(result)
        return True

    def _blame(self, job: _Job, failure: Failed, settled: list[tuple[Row, Outcome]]) -> None:
        if job.row is not None:
            settled.append((job.row, failure))
            return
        self._deaths_at_open += 1
        if self._deaths_at_open >= _DEATHS_AT_OPEN:
            raise WorkFailed(f"workers of {self._stage.name} die while they load: {failure.message}")

    def _dismiss(self, member: _Member) -> None:
        self._returned.extend(job.row for job in member.queue if job.row is not None)
        ray.kill(member.actor)

    def close(self) -> None:
        """Kill all actors; what they were working on is simply not done."""
        for member in self._members:
            ray.kill(member.actor)


def _opening_failed(result: Any) -> Exception:
    error = getattr(result, "error", None)
    return error if isinstance(error, Exception) else WorkFailed(f"the stage could not be opened: {result.message}")
