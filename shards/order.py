"""The order of an epoch: a shuffle that is a function of (seed, epoch) and needs no memory for the samples.

Shards are permuted, and every `block_shards` of them make a block, whose units (clips or videos) are permuted as one.
So neighbours in the order come from all shards of a block, while at any time only the indexes of one or two blocks
are in use. Permutations come from sorting SplitMix64 values and not from a library's generator, whose stream may
change with its version: an order must be the same when a run resumes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_GOLDEN = 0x9E3779B97F4A7C15
_BLOCKS_KEPT = 2


def permutation(seed: str, size: int) -> Ints:
    """A permutation of range(size) drawn from a text; the same everywhere and for ever."""
    base = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "big")
    counters = np.arange(1, size + 1, dtype=np.uint64)
    counters *= np.uint64(_GOLDEN)
    counters += np.array([base], dtype=np.uint64)  # of an array: it wraps around, a number would warn
    return np.argsort(_mix(counters), kind="stable").astype(np.int64, copy=False)


def uniforms(seed: str, count: int) -> list[float]:
    """Numbers in [0, 1) drawn from a text, at most eight."""
    digest = hashlib.blake2b(seed.encode(), digest_size=8 * count).digest()
    # 53 bits, so that the quotient is exact and never 1.
    return [(int.from_bytes(digest[8 * i : 8 * i + 8], "big") >> 11) / (1 << 53) for i in range(count)]


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): a bijection that scatters counters. In place."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    return values


class Order:
    """Where the units of an epoch lie: position in the epoch -> (shard, unit of that shard).

    `sizes` are the units of each shard. Memory grows with the number of shards and with the units of a block.
    """

    def __init__(
        self, sizes: Sequence[int] | npt.NDArray[np.integer[Any]], *, seed: int, epoch: int, block_shards: int
    ) -> None:
        self._seed = f"{seed}:{epoch}"
        self._block_shards = block_shards
        self._shards = permutation(f"{self._seed}:shards", len(sizes))
        self._ends = np.cumsum(np.asarray(sizes)[self._shards], dtype=np.int64)
        self._block_ends = np.append(self._ends[block_shards - 1 :: block_shards], self._ends[-1:])
        self._blocks: OrderedDict[int, Ints] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, position: int) -> tuple[int, int]:
        """The shard and the unit in it at a position of the epoch."""
        shards, units = self.take(np.array([position]))
        return int(shards[0]), int(units[0])

    def take(self, positions: Ints) -> tuple[Ints, Ints]:
        """The shards, and the units in them, at positions of the epoch."""
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(positions)
        blocks = np.searchsorted(self._block_ends, positions, side="right")
        places = np.empty_like(positions)
        for block in np.unique(blocks).tolist():
            chosen, begin = blocks == block, self.begin_of(block)
            places[chosen] = begin + self._block(block, int(self._block_ends[block]) - begin)[positions[chosen] - begin]
        slots = np.searchsorted(self._ends, places, side="right")
        begins = np.where(slots > 0, self._ends[slots - 1], 0)
        return self._shards[slots], places - begins

    def block_of(self, position: int) -> int:
        """The block that a position lies in."""
        return int(np.searchsorted(self._block_ends, position, side="right"))

    def begin_of(self, block: int) -> int:
        """The first position of a block."""
        return int(self._block_ends[block - 1]) if block else 0

    def shards_of(self, block: int) -> Ints:
        """The shards that are shuffled together in a block; none where there is no such block."""
        return self._shards[block * self._block_shards : (block + 1) * self._block_shards]

    def _block(self, block: int, size: int) -> Ints:
        if block not in self._blocks:
            self._blocks[block] = permutation(f"{self._seed}:block:{block}", size)
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[block]
