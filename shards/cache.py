"""Whole objects of a remote store on the local disk, shared by all processes of a machine, with a limit in bytes.

    FOLDER/<name>            a whole object; its time of change is when it was last opened for reading
    FOLDER/<name>.partial    one that is being fetched, of its full size from the start, locked by who fetches it
    FOLDER/lock              held while room is made, and while anything is moved or removed

An object is written beside its place and moved there, so nobody sees a half. Room is made before an object is fetched,
least recently used first; what is being fetched counts in full, so the limit holds at every moment. Whoever still
reads an object that goes keeps reading it. A lock ends with its process: what a killed one left is taken over or swept.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from sayso.storage import no_space_named

_PARTIAL = ".partial"
_LOCK = "lock"


class Cache:
    """The cache in a folder. Cheap to make; any number of processes and threads may use one folder."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Make the folder, for this user alone, and sweep what killed processes left in it."""
        self.folder, self.limit_bytes = folder, limit_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            self._sweep()

    def open(self, name: str) -> int | None:
        """A descriptor of an object that is here, None where it is not; it counts as used."""
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        os.utime(descriptor)
        return descriptor

    def holds(self, name: str) -> bool:
        """Whether an object is here."""
        return (self.folder / name).exists()

    def drop(self, name: str) -> None:
        """Forget an object."""
        with self._locked():
            (self.folder / name).unlink(missing_ok=True)

    def fetch(self, name: str, size: int, write: Callable[[BinaryIO], bool]) -> bool:
        """Put an object of `size` bytes here, unless it is: `write` writes it to a file. Whether it is here now.

        False where another process is fetching it, where there is no room for it beside what is being fetched, and
        where `write` gives up or writes another size. NoSpace where the disk is full.
        """
        partial = self.folder / f"{name}{_PARTIAL}"
        with _opened(partial) as file:
            if not _lock(file) or not _is(file, partial):
                return self.holds(name)
            moved = False
            try:
                if self.holds(name):
                    return True
                with no_space_named(str(self.folder)):
                    if not (self._reserve(file, size) and write(file) and file.tell() == size):
                        return False
                    file.flush()
                with self._locked():
                    partial.replace(self.folder / name)
                moved = True
                return True
            finally:
                # Nobody else touches what lies there while it is locked. Once it is moved, another's may lie there.
                if not moved:
                    with self._locked():
                        partial.unlink(missing_ok=True)

    def _reserve(self, file: BinaryIO, size: int) -> bool:
        """Give a file its full size, if there is or can be made room for it."""
        file.truncate(0)
        with self._locked():
            if not self._make_room(size):
                return False
            file.truncate(size)
        return True

    def _make_room(self, size: int) -> bool:
        found = [(entry.stat(), Path(entry.path)) for entry in os.scandir(self.folder) if entry.name != _LOCK]
        taken = sum(stat.st_size for stat, _ in found)
        whole = sorted((stat.st_mtime_ns, path, stat.st_size) for stat, path in found if path.suffix != _PARTIAL)
        if taken - sum(length for *_, length in whole) + size > self.limit_bytes:
            return False
        for _, path, length in whole:
            if taken + size <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            taken -= length
        return True

    def _sweep(self) -> None:
        for partial in self.folder.glob(f"*{_PARTIAL}"):
            with _opened(partial) as file:
                if _lock(file) and _is(file, partial):
                    partial.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _unlocked_after((self.folder / _LOCK).open("ab")) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _opened(partial: Path) -> AbstractContextManager[BinaryIO]:
    """A partial object opened for writing, made if it is not there, and not cut: it may be another's."""
    return _unlocked_after(os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b"))


@contextmanager
def _unlocked_after(file: BinaryIO) -> Iterator[BinaryIO]:
    """An open file, closed and without a lock of ours afterwards.

    Closing alone would not do: a process that another thread forks meanwhile, as loaders do, has the file open too, and
    with it the lock, for as long as it lives.
    """
    with file:
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: BinaryIO) -> bool:
    """Lock an open file, if nobody has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still lies where it was opened: it may have been moved or swept before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
