"""The bytes of an export's tars: from the local disk, from a remote store by ranges, or out of a cache of whole tars.

    wanted in part   a request for the range of each sample
    wanted whole     the same, until a thread has the tar in the cache; then from there

Nobody waits long for a whole tar.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Protocol

from sayso.errors import CorruptObject, SaysoError
from sayso.storage import Storage
from shards.broken import BrokenSample
from shards.cache import Cache
from shards.contents import Manifest

log = logging.getLogger(__name__)

_OPEN = 128
_FETCHERS = 2
# The first samples of a run do not wait for anything. Later a sample waits a moment for its tar, so that requests for
# single samples, which cost as much as a megabyte, do not hold it up.
_FIRST = 64
_WAIT = 0.25


class Tars(Protocol):
    """Where the bytes of an export's tars come from. Any thread may ask."""

    def read(self, shard: int, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of a shard's tar; fewer where it is shorter. BrokenSample where there is none."""

    def read_afresh(self, shard: int, begin: int, end: int) -> bytes:
        """The same from the source itself, where what was read before is not what it should be."""

    def forget(self, shard: int) -> None:
        """What is kept of a tar is not what it should be."""

    def want(self, shards: Iterable[int]) -> None:
        """Most of these tars will be read."""

    def close(self) -> None:
        """Stop what goes on in the background."""


class _Descriptor:
    """An open file that closes when nobody holds it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _OpenFiles:
    """Files of shards that are held open, the most recently used ones."""

    def __init__(self, opener: Callable[[int], int | None]) -> None:
        """`opener(shard)` gives a new descriptor, or None."""
        self._opener = opener
        self._files: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, shard: int) -> _Descriptor | None:
        with self._lock:
            found = self._files.get(shard)
            if found is not None:
                self._files.move_to_end(shard)
                return found
            number = self._opener(shard)
            if number is None:
                return None
            self._forget_removed()
            self._files[shard] = found = _Descriptor(number)
            return found

    def forget(self, shard: int) -> None:
        with self._lock:
            self._files.pop(shard, None)

    def _forget_removed(self) -> None:
        """Let go of what was removed, whose room on the disk is free only then, and of what is too much."""
        for shard in [shard for shard, file in self._files.items() if not os.fstat(file.number).st_nlink]:
            del self._files[shard]
        while len(self._files) >= _OPEN:
            self._files.popitem(last=False)


class LocalTars:
    """Tars on this machine."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._storage, self._manifest = storage, manifest
        self._files = _OpenFiles(self._open)

    def read(self, shard: int, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of a shard's tar; fewer where it is shorter. BrokenSample where there is none."""
        file = self._files.get(shard)
        if file is None:
            raise BrokenSample("missing_tar", f"{self._manifest.tar(shard)}: missing")
        return os.pread(file.number, end - begin, begin)

    def _open(self, shard: int) -> int | None:
        try:
            return os.open(self._storage.path(self._manifest.tar(shard)), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def read_afresh(self, shard: int, begin: int, end: int) -> bytes:
        """The same from the file that lies there now: it may have been replaced since it was opened."""
        self._files.forget(shard)
        return self.read(shard, begin, end)

    def forget(self, shard: int) -> None:
        """Nothing is kept but open files."""

    def want(self, shards: Iterable[int]) -> None:
        """The operating system has a cache of its own."""

    def close(self) -> None:
        """Nothing goes on."""


class RemoteTars:
    """Tars of a remote store, with a cache where there is one. Raises StorageError and RootError as the store does."""

    def __init__(self, storage: Storage, manifest: Manifest, cache: Cache | None) -> None:
        self._storage, self._manifest, self._cache = storage, manifest, cache
        self._files = _OpenFiles(lambda shard: cache.open(self._name(shard)) if cache else None)
        self._asked: set[int] = set()
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._fetchers: list[threading.Thread] = []
        self._closed = threading.Event()
        self._arrived = threading.Condition()
        self._missed = 0

    def read(self, shard: int, begin: int, end: int) -> bytes:
        """The bytes [begin, end) of a shard's tar; fewer where it is shorter. BrokenSample where there is none."""
        file = self._files.get(shard)
        if file is None and self._awaited(shard):
            file = self._files.get(shard)
        if file is not None:
            return os.pread(file.number, end - begin, begin)
        return self.read_afresh(shard, begin, end)

    def read_afresh(self, shard: int, begin: int, end: int) -> bytes:
        """The same from the store."""
        key = self._manifest.tar(shard)
        try:
            return self._storage.read(key, begin, end)
        except FileNotFoundError:
            raise BrokenSample("missing_tar", f"{key}: missing") from None
        except CorruptObject:
            raise BrokenSample("short_tar", f"{key}: has no bytes [{begin}, {end})") from None

    def _awaited(self, shard: int) -> bool:
        """Wait a moment for a tar that is being fetched; whether it may be there now."""
        self._missed += 1
        if self._missed <= _FIRST or shard not in self._asked:
            return False
        with self._arrived:
            return self._arrived.wait_for(lambda: shard not in self._asked, _WAIT)

    def forget(self, shard: int) -> None:
        """Take a tar out of the cache."""
        self._files.forget(shard)
        if self._cache is not None:
            log.warning("%s: damaged in the cache, read from the store", self._manifest.tar(shard))
            self._cache.drop(self._name(shard))

    def want(self, shards: Iterable[int]) -> None:
        """Fetch tars whole, in this order, in the background."""
        if self._cache is None or self._closed.is_set():
            return
        while len(self._fetchers) < _FETCHERS:
            # They end with the process, whatever they are at: what they leave is swept.
            fetcher = threading.Thread(target=self._fetch_wanted, args=(self._cache,), name="sayso-fetch", daemon=True)
            self._fetchers.append(fetcher)
            fetcher.start()
        for shard in shards:
            if shard not in self._asked:
                self._asked.add(shard)
                self._queue.put(shard)

    def close(self) -> None:
        """Stop fetching."""
        self._closed.set()
        for _ in self._fetchers:
            self._queue.put(None)

    def _fetch_wanted(self, cache: Cache) -> None:
        while (shard := self._queue.get()) is not None and not self._closed.is_set():
            self._fetch(cache, shard)
            with self._arrived:
                self._asked.discard(shard)
                self._arrived.notify_all()

    def _fetch(self, cache: Cache, shard: int) -> None:
        """Fetch one. What goes wrong here is not lost: whoever wants a sample asks the store for it."""
        key, size = self._manifest.tar(shard), int(self._manifest.bytes[shard])
        try:
            cache.fetch(self._name(shard), size, lambda file: self._storage.copy_whole(key, file, self._goes_on))
        except FileNotFoundError:
            log.warning("%s: missing", key)
        except (SaysoError, OSError) as error:
            log.warning("%s is not kept in the cache: %s", key, error)

    def _goes_on(self) -> bool:
        return not self._closed.is_set()

    def _name(self, shard: int) -> str:
        """By content: a shard that is rewritten is another object, and two roots with one shard share it."""
        assert self._manifest.sha256 is not None, "of remote stores it is read"
        return f"{self._manifest.sha256[shard].as_py().hex()}.tar"
