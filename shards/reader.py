"""Read clips for training.

    position in the epoch -> a sample, read (shards/samples.py) -> decoded frames and a bag of narrations

The global order is a function of (seed, epoch) alone. Rank r of W takes positions p with p % W == r, counted from
where the epoch was resumed; every rank takes the same number, so up to W - 1 positions at an epoch's end are left out.
State is (epoch, position), position being samples consumed over all ranks: it means the same on any number of ranks
and loader workers.

Loader workers share a rank's samples out in runs of `batch_size`, so a DataLoader gives the rank's order exactly:
    DataLoader(reader, batch_size=None, num_workers=n)                                 single samples
    DataLoader(reader_with_batch_size_b, batch_size=b, num_workers=n, collate_fn=...)  batches
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from sayso.errors import ConfigError, InputError
from sayso.patience import PATIENCE, Patience
from shards.broken import KINDS, Kind
from shards.clips import Clip, ClipSettings, check_decoder, make_clip
from shards.library import RawSample
from shards.mix import Source
from shards.order import Ints
from shards.samples import Place, ReadSettings, Samples

_MOST_WORKERS = 1024
# So many positions are looked up at once.
_PIECE = 256
Used = TypeVar("Used")


class ReaderSettings(ReadSettings, ClipSettings):
    """What is taken of a sample and how, in which order samples come, and how they are brought here."""


class ClipReader(IterableDataset[Clip]):
    """The clips of one split of an export, or of a mix of several, in the order of the current epoch, for one rank."""

    def __init__(
        self,
        data: str | Sequence[Source],
        *,
        settings: ReaderSettings,
        seed: int,
        split: str = "train",
        rank: int = 0,
        world_size: int = 1,
        batch_size: int = 1,
        options: dict[str, Any] | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        """`data` is <root>/shards/<export>, any fsspec URL, of which `split` is read, or the sources of a mix.

        `options` go to the file systems; a remote store that fails is put up with for as long as `patience` says.
        Raises InputError where there is no export, no such split, or it has fewer samples than there are ranks.
        """
        assert 0 <= rank < world_size
        check_decoder(settings)
        sources = [Source(url=data, split=split)] if isinstance(data, str) else data
        self.settings = settings
        self.seed, self.rank, self.world_size, self.batch_size = seed, rank, world_size, batch_size
        self._named = " and ".join(f"{source.url} ({source.split})" for source in sources)
        share = min(1.0, _ranks_here() / world_size)
        self._samples = Samples(sources, settings, seed=seed, share=share, options=options, patience=patience)
        if self.samples < world_size:
            raise InputError(f"{self._named} has {self.samples} samples for {world_size} ranks; use fewer")
        # Where the run stands: (epoch, position). In shared memory too, for loader workers that outlive an epoch.
        self._now = (0, 0)
        self._shared = torch.zeros(2, dtype=torch.int64)
        self._iterated_in = 0
        self._broken = torch.zeros((_MOST_WORKERS, len(KINDS)), dtype=torch.int64)
        for counter in (self._shared, self._broken):
            counter.untyped_storage().share_memory_()

    @property
    def samples(self) -> int:
        """Samples of an epoch over all ranks."""
        return len(self._samples)

    @property
    def broken(self) -> int:
        """Broken samples that were met and replaced since this reader was made, over its loader's workers."""
        return int(self._broken.sum())

    @property
    def broken_by_kind(self) -> dict[Kind, int]:
        """The same by what is wrong with them; kinds that were not met are left out."""
        counts = self._broken.sum(dim=0).tolist()
        return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}

    @property
    def video_ids(self) -> list[str]:
        """The videos of the data, sorted. Reads every index."""
        return self._samples.video_ids

    def __len__(self) -> int:
        return self.samples // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch: to its beginning, unless it is the current one."""
        if epoch != self._now[0]:
            self._go_to(epoch, 0)

    def advance(self, samples: int) -> None:
        """Count samples, over all ranks, as consumed: iterating anew begins behind them."""
        epoch, position = self._now
        self._go_to(epoch, min(position + samples, self.samples))

    def _go_to(self, epoch: int, position: int) -> None:
        self._now = epoch, position
        self._shared[0], self._shared[1] = epoch, position

    def state_at(self, epoch: int, position: int) -> dict[str, int]:
        """The state of a run that stands there; `samples` and `order` tell whether it is resumed on the same data."""
        return {"epoch": epoch, "position": position, "samples": self.samples, "order": self._samples.digest}

    def state_dict(self) -> dict[str, int]:
        """Where the run stands."""
        return self.state_at(*self._now)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where a run stood. ConfigError where the state belongs to other data or to another order of them."""
        own = self.state_dict()
        if any(state.get(name, own[name]) != own[name] for name in ("samples", "order")) or not (
            0 <= state["position"] <= self.samples
        ):
            raise ConfigError(
                f"the state {dict(state)} does not fit {self._named} with {self.samples} samples an epoch: the data "
                "grew or were changed, or they are shuffled by another seed or in another way; "
                "resume on the export and settings that it was made with, or begin anew"
            )
        self._go_to(state["epoch"], state["position"])

    def _begin(self) -> tuple[int, int]:
        """Where an iteration begins: (epoch, position). To be asked when it is made, not when it is first used.

        A loader's worker may start, or get to work, when the loop has counted batches of others already. So it begins
        where the run stood when the worker was made; where it outlives an epoch, where the run stands when the loader
        asks all its workers for the next one, and waits for them.
        """
        outlived = get_worker_info() is not None and self._iterated_in == os.getpid()
        self._iterated_in = os.getpid()
        if not outlived:
            return self._now
        epoch, position = self._shared.tolist()
        return epoch, position

    def __iter__(self) -> Iterator[Clip]:
        return self._stream(lambda sample, place: make_clip(sample, self.settings, f"{self.seed}:{place.epoch}"))

    def raw(self) -> Iterator[RawSample]:
        """The same samples in the same order, read but not decoded."""
        return self._stream(lambda sample, _: sample)

    def places(self) -> Iterator[Place]:
        """Where the same samples are found, in the same order; nothing is read."""
        epoch, position = self._begin()
        return (place for piece in self._pieces(position) for place in self._samples.places(epoch, piece))

    def positions(self) -> Iterator[int]:
        """The positions of the epoch from the current one on that this rank takes, in this loader worker."""
        return (position for piece in self._pieces(self._begin()[1]) for position in piece.tolist())

    def _pieces(self, begin: int) -> Iterator[Ints]:
        count = (self.samples - begin) // self.world_size
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # Batch n of the rank is this worker's if n % workers is its number.
        batches = -(-count // self.batch_size)
        at_once = -(-_PIECE // self.batch_size)
        for first in range(number, batches, workers * at_once):
            own = np.arange(first, min(first + workers * at_once, batches), workers)
            steps = (own[:, None] * self.batch_size + np.arange(self.batch_size)).ravel()
            yield begin + steps[steps < count] * self.world_size + self.rank

    def _stream(self, use: Callable[[RawSample, Place], Used]) -> Iterator[Used]:
        worker = get_worker_info()
        counts = self._broken[worker.id % _MOST_WORKERS if worker else 0]

        def broken(kind: Kind) -> None:
            counts[KINDS.index(kind)] += 1

        epoch, position = self._begin()
        return self._samples.stream(epoch, self._pieces(position), use, broken)


def _ranks_here() -> int:
    """Ranks on this machine, as launchers tell (torchrun, DeepSpeed); 1 where nobody does."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
