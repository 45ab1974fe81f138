"""Samples in the order of a run, read and not decoded; knows nothing of torch.

    position in the epoch -> (source, number) by the mix -> (shard, unit) by the source's order -> bytes of a tar

`Samples` says which sample comes when, and reads it. Where a run stands is its caller's business (shards/reader.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from sayso.caches import cache_place
from sayso.config import Settings
from sayso.errors import CorruptObject
from sayso.patience import PATIENCE, Patience
from sayso.storage import Storage
from shards.broken import Kind, kind_of
from shards.cache import Cache
from shards.contents import Manifest, read_manifest
from shards.library import Library, RawSample
from shards.mix import Mix, Source
from shards.order import Ints, Order, uniforms
from shards.tars import LocalTars, RemoteTars, Tars

log = logging.getLogger(__name__)

BROKEN_IN_A_ROW = 100
"""So many broken samples one after the other stop the run: the fault is not in the samples."""
_ORDERS_KEPT = 2
_THREADS = 16
Used = TypeVar("Used")


class ReadSettings(Settings):
    """In which order samples come, and how they are brought here."""

    per_video: bool = Field(True, description="an epoch is one random clip of each video, not every clip")
    block_shards: int = Field(64, ge=1, description="shards that are shuffled together")
    prefetch: int = Field(
        64,
        ge=0,
        description="samples of remote stores that a loader worker reads ahead; 0 for none",
    )
    cache_folder: Path | None = Field(
        None,
        description="folder of this machine for whole shards of remote stores, shared by all ranks and workers; "
        "by default under XDG_CACHE_HOME, else under the system's temporary folder",
    )
    cache_bytes: int = Field(
        20_000_000_000, ge=0, description="most that the folder holds, least recently used shards go; 0 for no cache"
    )
    cache_from: float = Field(
        0.4, ge=0, description="least part of a shard that this machine must want for the whole of it to be fetched"
    )

    @property
    def cache_place(self) -> Path:
        """The folder that holds the cache."""
        if self.cache_folder is not None:
            return self.cache_folder
        return cache_place("shards")


class Place(NamedTuple):
    """Where a sample is found: a unit (a clip, or a video) of a shard of a source, in an epoch of that source."""

    source: int
    epoch: int
    shard: int
    unit: int


class Samples:
    """The samples of one export or of a mix of several. May be pickled and forked."""

    def __init__(
        self,
        sources: Sequence[Source],
        settings: ReadSettings,
        *,
        seed: int,
        share: float = 1.0,
        options: dict[str, Any] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        """`share` is the part of all samples that is read on this machine; `options` go to the file systems.

        Raises InputError where there is no export or no such split.
        """
        self.sources, self.settings, self.seed, self.share = list(sources), settings, seed, share
        # Cheap to pickle; each process opens its own file systems.
        self._storages = [Storage(source.url, options, patience) for source in sources]
        self.manifests = [
            read_manifest(storage, source.split, shared=settings.per_video)
            for storage, source in zip(self._storages, sources, strict=True)
        ]
        self._sizes = [found.owned if settings.per_video else found.samples for found in self.manifests]
        self._totals = [int(sizes.sum()) for sizes in self._sizes]
        self._mix = Mix([source.weight for source in sources], seed=seed)
        self._orders: OrderedDict[tuple[int, int], Order] = OrderedDict()
        self._wanted: dict[int, tuple[int, int]] = {}
        self._opened: tuple[int, _Opened] | None = None

    def __len__(self) -> int:
        """Samples of an epoch: as many as all sources have together."""
        return sum(self._totals)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_orders": OrderedDict(), "_wanted": {}}

    @property
    def digest(self) -> int:
        """48 bits of all that the order depends on: the data, its mixture, the seed and how it is shuffled."""
        mixed = [
            [manifest.digest, source.split, source.weight if len(self.sources) > 1 else 1.0]
            for manifest, source in zip(self.manifests, self.sources, strict=True)
        ]
        text = json.dumps([self.seed, self.settings.per_video, self.settings.block_shards, mixed])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    @property
    def video_ids(self) -> list[str]:
        """All videos, sorted. Reads every index."""
        return sorted({video for library in self._libraries() for video in library.video_ids()})

    def places(self, epoch: int, positions: Ints) -> list[Place]:
        """Where the samples at positions of an epoch are found."""
        sources, numbers = self._mix.take(epoch * len(self) + positions)
        found = np.empty((len(positions), 4), dtype=np.int64)
        for source in np.unique(sources).tolist():
            mine = np.flatnonzero(sources == source)
            epochs, within = np.divmod(numbers[mine], self._totals[source])
            for own_epoch in np.unique(epochs).tolist():
                rows = epochs == own_epoch
                shards, units = self._order(source, own_epoch).take(within[rows])
                found[mine[rows]] = np.stack(
                    [np.full_like(shards, source), np.full_like(shards, own_epoch), shards, units], 1
                )
        return [Place(*row) for row in found.tolist()]

    def _order(self, source: int, epoch: int) -> Order:
        if (source, epoch) not in self._orders:
            self._orders[source, epoch] = Order(
                self._sizes[source], seed=self.seed, epoch=epoch, block_shards=self.settings.block_shards
            )
            if len(self._orders) > _ORDERS_KEPT * len(self.sources):
                self._orders.popitem(last=False)
        self._orders.move_to_end((source, epoch))
        return self._orders[source, epoch]

    def read(self, place: Place) -> RawSample:
        """The sample at a place; any thread may ask. CorruptObject where it is broken."""
        library, shard, row = self._libraries()[place.source], place.shard, place.unit
        if self.settings.per_video:
            video = library.owned_videos(shard)[place.unit]
            share = uniforms(f"{self.seed}:{place.epoch}:{video}:clip", 1)[0]
            shard, row = library.clip_of_video(shard, video, share)
        return library.read(shard, row)

    def stream(
        self,
        epoch: int,
        positions: Iterable[Ints],
        use: Callable[[RawSample, Place], Used],
        broken: Callable[[Kind], None],
    ) -> Iterator[Used]:
        """What `use` makes of the samples at positions, which come in pieces, in their order.

        A broken sample is told to `broken`, and another of its source drawn in its place, by the position alone: ranks
        stay even and a resumed run meets the same samples. CorruptObject where BROKEN_IN_A_ROW are broken.
        """
        for position, place, first in self._read_ahead(epoch, positions):
            error = CorruptObject("")
            for attempt in range(BROKEN_IN_A_ROW):
                instead = place if not attempt else self._another(place, f"{epoch}:{position}:replace:{attempt}")
                try:
                    made = use(self.read(instead) if attempt else first(), instead)
                except CorruptObject as found:
                    error = found
                    broken(kind_of(found))
                    log.warning("broken sample replaced: %s", found)
                    continue
                yield made
                break
            else:
                raise CorruptObject(f"{BROKEN_IN_A_ROW} broken samples in a row, the last: {error}; run `sayso verify`")

    def _another(self, place: Place, seed: str) -> Place:
        position = int(uniforms(f"{self.seed}:{seed}", 1)[0] * self._totals[place.source])
        shard, unit = self._order(place.source, place.epoch)[position]
        return place._replace(shard=shard, unit=unit)

    def _read_ahead(
        self, epoch: int, positions: Iterable[Ints]
    ) -> Iterator[tuple[int, Place, Callable[[], RawSample]]]:
        """Each position with its place and what gives its sample, which threads have begun to read."""
        placed = (pair for piece in positions for pair in zip(piece.tolist(), self._placed(epoch, piece), strict=True))
        if not self._opened_here().remote or not self.settings.prefetch:
            for position, place in placed:
                yield position, place, partial(self.read, place)
            return
        threads = ThreadPoolExecutor(min(_THREADS, self.settings.prefetch), thread_name_prefix="sayso-read")
        try:
            ahead: deque[tuple[int, Place, Callable[[], RawSample]]] = deque()
            for position, place in placed:
                ahead.append((position, place, threads.submit(self.read, place).result))
                if len(ahead) > self.settings.prefetch:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _placed(self, epoch: int, positions: Ints) -> list[Place]:
        places = self.places(epoch, positions)
        if self._opened_here().caching:
            for source, number in zip(*self._mix.take(epoch * len(self) + positions[:1]), strict=True):
                self._want(int(source), *divmod(int(number), self._totals[int(source)]))
        return places

    def _want(self, source: int, epoch: int, position: int) -> None:
        """Have the shards of a position's block and of the next one fetched whole, where that is worth it."""
        order = self._order(source, epoch)
        block = order.block_of(position)
        if self._wanted.get(source) == (epoch, block):
            return
        self._wanted[source] = epoch, block
        manifest = self.manifests[source]
        blocks = [order.shards_of(block), order.shards_of(block + 1)]
        # Of a block that is larger than the cache, shards would go before they are read.
        if manifest.bytes[np.concatenate(blocks)].sum() > self.settings.cache_bytes / len(self.sources):
            return
        begin, end = order.begin_of(block), order.begin_of(block + 1)
        left = [(end - position) / (end - begin), 1.0]
        for shards, part in zip(blocks, left, strict=True):
            wanted = part * self.share * self._sizes[source][shards] / np.maximum(manifest.samples[shards], 1)
            self._libraries()[source].tars.want(shards[wanted >= self.settings.cache_from].tolist())

    def _libraries(self) -> list[Library]:
        return self._opened_here().libraries

    def _opened_here(self) -> _Opened:
        """What this process has open: file systems and threads do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _Opened(self._storages, self.manifests, self.settings)
        return self._opened[1]


class _Opened:
    """The libraries of all sources, in one process."""

    def __init__(self, storages: Sequence[Storage], manifests: Sequence[Manifest], settings: ReadSettings) -> None:
        # Made anew: those of the process that this one was forked from do not work here.
        storages = [Storage(storage.url, storage.options, storage.patience) for storage in storages]
        self.remote = not all(storage.is_local for storage in storages)
        self.caching = self.remote and settings.cache_bytes > 0
        cache = Cache(settings.cache_place, settings.cache_bytes) if self.caching else None
        self.libraries = [
            Library(storage, manifest, _tars(storage, manifest, cache), 2 * settings.block_shards)
            for storage, manifest in zip(storages, manifests, strict=True)
        ]
        for library in self.libraries:
            weakref.finalize(self, library.tars.close)


def _tars(storage: Storage, manifest: Manifest, cache: Cache | None) -> Tars:
    return LocalTars(storage, manifest) if storage.is_local else RemoteTars(storage, manifest, cache)
