"""Several exports read as one: which of them each position takes, in exact proportion to their weights.

Positions are counted over all epochs, from 0. Every block of them holds its share of each source, to within one
sample of the weights' exact proportion, and so does everything up to a block's end; within a block the sources are
permuted. A source's own samples are numbered on without end, so that it goes through its own epochs at its own pace.
Nothing is remembered: position -> (source, number) is arithmetic. One export is a mix of one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
from pydantic import Field

from sayso.config import Settings
from sayso.errors import ConfigError
from shards.order import Ints, permutation

_BLOCK = 1024
_LARGEST_BLOCK = 1 << 20
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
        shares = [Fraction(str(weight)) for weight in weights]
        self._bounds = [Fraction(0), *(bound / sum(shares) for bound in accumulate(shares))]
        # So large that the least source is in every block, whatever is rounded.
        self.block = max(_BLOCK, math.ceil(2 * sum(shares) / min(shares)))
        if self.block > _LARGEST_BLOCK:
            raise ConfigError(
                f"the weights {', '.join(map(str, weights))} lie too far apart to be mixed exactly; "
                f"give each at least 1/{_LARGEST_BLOCK // 2} of their sum"
            )
        self._seed = seed
        self._blocks: OrderedDict[int, tuple[Ints, Ints]] = OrderedDict()

    def before(self, position: int) -> list[int]:
        """Of each source, the samples that come before a position at which a block begins."""
        assert position % self.block == 0
        return [after - before for before, after in pairwise(int(bound * position) for bound in self._bounds)]

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
        begin = block * self.block
        before, after = self.before(begin), self.before(begin + self.block)
        counts = [last - first for first, last in zip(before, after, strict=True)]
        in_turn = np.repeat(np.arange(len(counts)), counts)
        sources = in_turn[permutation(f"{self._seed}:mix:{block}", self.block)]
        numbers = np.empty_like(sources)
        for source, (first, last) in enumerate(zip(before, after, strict=True)):
            numbers[sources == source] = np.arange(first, last)
        return sources, numbers
