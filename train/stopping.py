"""SIGINT and SIGTERM to whoever started a run: noted while there are ranks that must be ended in order.

SIGINT, and a second signal of either kind, want the end at once. SIGTERM alone wants a checkpoint first.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from sayso.errors import Preempted, Stopped

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


def at_once(caught: Sequence[int]) -> bool:
    """Whether these signals want the end at once."""
    return signal.SIGINT in caught or len(caught) > 1


def refuse_if_stopped(caught: Sequence[int]) -> None:
    """Raise Stopped where a person wants the end at once."""
    if at_once(caught):
        name = signal.Signals(caught[-1]).name
        raise Stopped(f"training was stopped by {name}; the same command goes on from the last checkpoint")


def refuse_if_told(caught: Sequence[int]) -> None:
    """Raise what signals mean while there is no rank yet that SIGTERM could be passed to."""
    refuse_if_stopped(caught)
    if caught:
        raise Preempted("training was stopped by SIGTERM before it began; the same command goes on")


@contextmanager
def signals_caught() -> Iterator[list[int]]:
    """Collect signals instead of dying of them."""
    caught: list[int] = []
    with _handled(caught.append):
        yield caught


@contextmanager
def interrupted_at_once() -> Iterator[None]:
    """While this process itself is at work, signals break it off."""
    with _handled(lambda number: refuse_if_told([number])):
        yield


@contextmanager
def sigterm_held_back() -> Iterator[None]:
    """What is started within does not get SIGTERM until it lets it through itself (`let_sigterm_through`).

    A machine that shuts down sends SIGTERM to all its processes. DeepSpeed's launcher would die of it, or would end the
    ranks, which have a checkpoint to write.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_sigterm_through() -> None:
    """Get the SIGTERMs that were held back, and those that come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


@contextmanager
def _handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Hand signals to a function; elsewhere than in the main thread, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        handle(number)

    before = {number: signal.signal(number, handler) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
