"""Several exports read as one: which of them each position takes, in exact proportion to their weights.

Positions are counted over all epochs, from 0. Every block of them holds exactly its share of each source; within a
block the sources are permuted. A source's own samples are numbered on without end, so that it goes through its own
epochs at its own pace. Nothing is remembered: position -> (source, number) is arithmetic. One export is a mix of one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from pydantic import Field

from sayso.config import Settings
from sayso.errors import ConfigError
from shards.order import Ints, permutation

_BLOCK = 1024
# Weights whose whole proportions are larger than this are rounded to parts of it.
_FINEST = 1 << 16
_BLOCKS_KEPT = 2


class Source(Settings):
    """A split of an export, and how much of a mix it is."""

    url: str = Field(description="<root>/shards/<export>: a folder or any fsspec URL")
    split: str = Field("train", description="split of the export")
    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="share of the mix, relative to the others'")


class Mix:
    """Where positions lead: to a source, and to a number among all that the mix ever takes of that source."""

    def __init__(self, weights: Sequence[float], *, seed: int) -> None:
        """ConfigError where the weights lie too far apart."""
        shares = _whole(weights)
        # Of every source as many whole times its share as make a block of about _BLOCK positions.
        self.counts = [max(1, _BLOCK // sum(shares)) * share for share in shares]
        self.block = sum(self.counts)
        self._seed = seed
        self._blocks: OrderedDict[int, tuple[Ints, Ints]] = OrderedDict()

    def take(self, positions: Ints) -> tuple[Ints, Ints]:
        """The sources at positions, and the samples' numbers in them."""
        sources, numbers = np.empty_like(positions), np.empty_like(positions)
        blocks = positions // self.block
        for block in np.unique(blocks).tolist():
            chosen = blocks == block
            of_block, numbers_of_block = self._block(block)
            within = positions[chosen] - block * self.block
            sources[chosen], numbers[chosen] = of_block[within], numbers_of_block[within]
        return sources, numbers

    def _block(self, block: int) -> tuple[Ints, Ints]:
        if block not in self._blocks:
            self._blocks[block] = self._draw(block)
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[block]

    def _draw(self, block: int) -> tuple[Ints, Ints]:
        in_turn = np.repeat(np.arange(len(self.counts)), self.counts)
        sources = in_turn[permutation(f"{self._seed}:mix:{block}", self.block)]
        numbers = np.empty_like(sources)
        for source, count in enumerate(self.counts):
            numbers[sources == source] = np.arange(block * count, (block + 1) * count)
        return sources, numbers


def _whole(weights: Sequence[float]) -> list[int]:
    """Weights as whole numbers in the same proportion, or as nearly as 1/_FINEST of their sum."""
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    shares = [int(weight * scale) for weight in exact]
    shares = [share // math.gcd(*shares) for share in shares]
    if sum(shares) > _FINEST:
        shares = [round(_FINEST * share / sum(shares)) for share in shares]
    if not all(shares):
        raise ConfigError(
            f"the weights {', '.join(map(str, weights))} lie too far apart to be mixed exactly; "
            f"give each at least 1/{_FINEST} of their sum"
        )
    return shares
