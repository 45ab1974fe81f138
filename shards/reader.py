"""Read clips for training.

    position in the epoch -> (shard, unit) by the order -> one range read -> decoded frames and a bag of narrations

The global order is a function of (seed, epoch) alone. Rank r of W takes positions p with p % W == r, counted from
where the epoch was resumed; every rank takes the same number, so up to W - 1 positions at an epoch's end are left out.
State is (epoch, position), position being samples consumed over all ranks: it means the same on any number of ranks
and loader workers.

Loader workers share a rank's samples out in runs of `batch_size`, so a DataLoader gives the rank's order exactly:
    DataLoader(reader, batch_size=None, num_workers=n)                                 single samples
    DataLoader(reader_with_batch_size_b, batch_size=b, num_workers=n, collate_fn=...)  batches
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from pydantic import Field
from torch.utils.data import IterableDataset, get_worker_info

from sayso.errors import ConfigError, CorruptObject, InputError
from sayso.storage import Storage
from shards.clips import Clip, ClipSettings, make_clip
from shards.contents import read_manifest
from shards.library import Library, RawSample
from shards.order import Order, uniforms

log = logging.getLogger(__name__)

BROKEN_IN_A_ROW = 100
"""So many broken samples one after the other stop the run: the fault is not in the samples."""
_MOST_WORKERS = 1024
Used = TypeVar("Used")


class ReaderSettings(ClipSettings):
    """What is taken of a sample and how, and in which order samples come."""

    per_video: bool = Field(True, description="an epoch is one random clip of each video, not every clip")
    block_shards: int = Field(64, ge=1, description="shards that are shuffled together")


class ClipReader(IterableDataset[Clip]):
    """The clips of one split of an export, in the order of the current epoch, for one rank."""

    def __init__(
        self,
        url: str,
        *,
        split: str,
        settings: ReaderSettings,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int = 1,
        options: dict[str, Any] | None = None,
    ) -> None:
        """`url` is <root>/shards/<export>, any fsspec URL, with `options` for its file system.

        Raises InputError where there is no export, no such split, or it has fewer samples than there are ranks.
        """
        assert 0 <= rank < world_size
        self.settings = settings
        self.seed, self.rank, self.world_size, self.batch_size = seed, rank, world_size, batch_size
        self._url, self._options = url, options
        self._manifest = read_manifest(Storage(url, options), split)
        self._sizes = self._manifest.owned if settings.per_video else self._manifest.samples
        if self.samples < world_size:
            raise InputError(f"{url}: split {split!r} has {self.samples} samples for {world_size} ranks; use fewer")
        # In shared memory, so that loader workers that outlive an epoch see the next one.
        self._state = torch.zeros(2, dtype=torch.int64)
        self._broken = torch.zeros(_MOST_WORKERS, dtype=torch.int64)
        for counter in (self._state, self._broken):
            counter.untyped_storage().share_memory_()
        self._order: tuple[int, Order] | None = None
        self._library: tuple[int, Library] | None = None

    @property
    def samples(self) -> int:
        """Samples of an epoch over all ranks."""
        return int(self._sizes.sum())

    @property
    def broken(self) -> int:
        """Broken samples that were met and replaced since this reader was made, over its loader's workers."""
        return int(self._broken.sum())

    @property
    def video_ids(self) -> list[str]:
        """The videos of the split, sorted. Reads every index."""
        return sorted(self._open().video_ids())

    def __len__(self) -> int:
        return self.samples // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch: to its beginning, unless it is the current one."""
        if epoch != int(self._state[0]):
            self._state[0], self._state[1] = epoch, 0

    def advance(self, samples: int) -> None:
        """Count samples, over all ranks, as consumed: iterating anew begins behind them."""
        self._state[1] = min(int(self._state[1]) + samples, self.samples)

    def state_dict(self) -> dict[str, int]:
        """Where the run stands; `samples` tells whether it is resumed on the same data."""
        return {"epoch": int(self._state[0]), "position": int(self._state[1]), "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where a run stood. ConfigError where the state belongs to other data."""
        if state.get("samples", self.samples) != self.samples or not 0 <= state["position"] <= self.samples:
            raise ConfigError(
                f"the state {dict(state)} does not fit {self._url} with {self.samples} samples an epoch; "
                "resume on the export and settings that it was made with, or begin anew"
            )
        self._state[0], self._state[1] = state["epoch"], state["position"]

    def __iter__(self) -> Iterator[Clip]:
        epoch = int(self._state[0])
        for position in self.positions():
            yield self._replacing_broken(epoch, position, self._clip)

    def raw(self) -> Iterator[RawSample]:
        """The same samples in the same order, read but not decoded."""
        epoch = int(self._state[0])
        for position in self.positions():
            yield self._replacing_broken(epoch, position, lambda sample, _: sample)

    def positions(self) -> Iterator[int]:
        """The positions of the epoch from the current one on that this rank takes, in this loader worker."""
        begin = int(self._state[1])
        count = (self.samples - begin) // self.world_size
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for first in range(number * self.batch_size, count, workers * self.batch_size):
            for step in range(first, min(first + self.batch_size, count)):
                yield begin + step * self.world_size + self.rank

    def _replacing_broken(self, epoch: int, position: int, use: Callable[[RawSample, int], Used]) -> Used:
        """What `use` makes of the sample at a position.

        A broken sample is counted and another drawn in its place, by the position alone: ranks stay even and a
        resumed run meets the same samples.
        """
        error = CorruptObject("")
        for attempt in range(BROKEN_IN_A_ROW):
            place = position
            if attempt:
                place = int(uniforms(f"{self.seed}:{epoch}:{position}:replace:{attempt}", 1)[0] * self.samples)
            try:
                return use(self._read(epoch, place), epoch)
            except CorruptObject as broken:
                error = broken
                worker = get_worker_info()
                self._broken[worker.id % _MOST_WORKERS if worker else 0] += 1
                log.warning("broken sample replaced: %s", broken)
        raise CorruptObject(f"{BROKEN_IN_A_ROW} broken samples in a row, the last: {error}; run `sayso verify`")

    def _read(self, epoch: int, position: int) -> RawSample:
        library = self._open()
        if self._order is None or self._order[0] != epoch:
            order = Order(self._sizes, seed=self.seed, epoch=epoch, block_shards=self.settings.block_shards)
            self._order = epoch, order
        shard, unit = self._order[1][position]
        if self.settings.per_video:
            video = library.owned_videos(shard)[unit]
            shard, unit = library.clip_of_video(shard, video, uniforms(f"{self.seed}:{epoch}:{video}:clip", 1)[0])
        return library.read(shard, unit)

    def _open(self) -> Library:
        """The library of this process: file systems do not survive a fork."""
        if self._library is None or self._library[0] != os.getpid():
            storage = Storage(self._url, self._options)
            keep = 2 * self.settings.block_shards
            self._library = os.getpid(), Library(storage, self._manifest, keep)
        return self._library[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_library": None, "_order": None}

    def _clip(self, sample: RawSample, epoch: int) -> Clip:
        return make_clip(sample, self.settings, f"{self.seed}:{epoch}")
