"""Who works on a stage of a root, so that a second run is refused before it does anything.

A run keeps an object leases/<run>.json fresh while it works. Another run that finds one for the same stage is refused
if its holder lives: on the same machine the process is looked up; elsewhere the object is watched, and a holder that
does not renew it is dead. Two that start in the same moment may both pass; the fence in the table's log (Writer)
then lets only one of them commit. The lease is for clear words early, the fence for safety.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel, Field, ValidationError

from sayso.errors import RootBusy, StorageError
from sayso.root import Root
from sayso.rows import now

_LOG = logging.getLogger(__name__)
EVERYTHING = "everything"
"""Held by one that nobody may work beside, whatever the stage."""
_FOLDER = "leases"
_BEAT_SECONDS = 5.0
_DEAD_AFTER_SECONDS = 4 * _BEAT_SECONDS
# A process's time of birth moves a little when the clock is set.
_SAME_BIRTH_SECONDS = 5.0
# No two clocks are further apart: a lease older than this needs no watching.
_LONG_AGO_SECONDS = 900.0


@cache
def machine() -> str:
    """A name for where process ids mean the same: this boot of this machine, this container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return socket.gethostname()
    return f"{boot.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  # not a path


class Holder(BaseModel):
    """What a lease says."""

    run_id: str
    stages: list[str]
    host: str = Field(default_factory=socket.gethostname)
    machine: str = Field(default_factory=machine)
    pid: int = Field(default_factory=os.getpid)
    born: float = Field(default_factory=lambda: psutil.Process().create_time())
    beat: datetime = Field(default_factory=now)

    @property
    def key(self) -> str:
        """The lease's object."""
        return f"{_FOLDER}/{self.run_id}.json"


@contextmanager
def lease(
    root: Root, run_id: str, stages: Sequence[str], pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold these stages of a root while the context lasts. RootBusy where another run does.

    `pause` sleeps while another machine's holder is watched; it may raise to end the waiting.
    """
    mine = Holder(run_id=run_id, stages=list(stages))
    for other in _others(root, mine):
        if _alive(root, other, pause):
            busy = ", ".join(sorted(_shared(other, mine)))
            raise RootBusy(
                f"{root.url}: run {other.run_id} (process {other.pid} on {other.host}) works on {busy}; "
                "wait for it or stop it, then run this again"
            )
        root.storage.remove(other.key)
    _beat(root, mine)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(root, mine, ended), name="sayso-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with suppress(StorageError):
            root.storage.remove(mine.key)


def _others(root: Root, mine: Holder) -> Iterator[Holder]:
    for key in root.storage.list(_FOLDER):
        found = _read(root, key)
        if found and found.run_id != mine.run_id and _shared(found, mine):
            yield found


def _shared(other: Holder, mine: Holder) -> set[str]:
    """What both hold."""
    if EVERYTHING in mine.stages:
        return {*other.stages}
    return {*other.stages} & {*mine.stages, EVERYTHING}


def _read(root: Root, key: str) -> Holder | None:
    try:
        return Holder.model_validate_json(root.storage.read(key))
    except FileNotFoundError:
        return None
    except ValidationError:
        _LOG.warning("%s: not a lease; left alone", key)
        return None


def _alive(root: Root, holder: Holder, pause: Callable[[float], None]) -> bool:
    if holder.machine == machine():
        return _runs_here(holder)
    if (now() - holder.beat).total_seconds() > _LONG_AGO_SECONDS:
        return False
    _LOG.warning("run %s on %s may still work here; looking whether it does", holder.run_id, holder.host)
    until = time.monotonic() + _DEAD_AFTER_SECONDS
    while time.monotonic() < until:
        pause(1.0)
        seen = _read(root, holder.key)
        if seen is None:
            return False
        if seen.beat != holder.beat:
            return True
    return False


def _runs_here(holder: Holder) -> bool:
    try:
        process = psutil.Process(holder.pid)
        same = abs(process.create_time() - holder.born) < _SAME_BIRTH_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _beat(root: Root, mine: Holder) -> None:
    root.storage.put_bytes(mine.model_copy(update={"beat": now()}).model_dump_json().encode(), mine.key)


def _keep(root: Root, mine: Holder, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_SECONDS):
        # A store that is away for a while takes no beats; the commits' fence still holds.
        with suppress(StorageError, OSError):
            _beat(root, mine)
