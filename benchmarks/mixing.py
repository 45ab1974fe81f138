"""How well a batch is mixed: distinct videos in it, against a full shuffle of all samples.

    python -m benchmarks.mixing

Shards of 1,000 samples hold 125 videos of 8 clips each, and a video's clips lie together: as sayso writes them. The
order is the reader's own; nothing is read. A full shuffle is drawn by numpy, of all samples at once.
"""

from __future__ import annotations

import argparse

import numpy as np

from shards.order import Ints, Order

SHARDS, SAMPLES, CLIPS_OF_A_VIDEO = 2000, 1000, 8
BATCHES = 200


def main(batches: int) -> None:
    """Print a line for each size of a batch and of a block."""
    sizes = np.full(SHARDS, SAMPLES)
    print(f"{SHARDS} shards of {SAMPLES} samples, {CLIPS_OF_A_VIDEO} clips a video; means of {batches} batches")
    print("batch  block  distinct videos  of a full shuffle  ratio")
    for batch in (64, 256, 1024, 8192):
        ideal = np.mean([distinct(full_shuffle(batch, draw)) for draw in range(20)])
        for block in (1, 16, 64, 256):
            order = Order(sizes, seed=0, epoch=0, block_shards=block)
            firsts = np.linspace(0, len(order) - batch, batches).astype(np.int64)
            mean = np.mean([distinct(videos(order, first, batch)) for first in firsts])
            print(f"{batch:5}  {block:5}  {mean:15.1f}  {ideal:17.1f}  {mean / ideal:5.3f}")


def videos(order: Order, first: int, batch: int) -> Ints:
    """The videos of a batch, as numbers over all shards."""
    shards, units = order.take(np.arange(first, first + batch))
    return (shards * SAMPLES + units) // CLIPS_OF_A_VIDEO


def full_shuffle(batch: int, draw: int) -> Ints:
    """The videos of a batch that is drawn of all samples."""
    drawn = np.random.default_rng(draw).choice(SHARDS * SAMPLES, batch, replace=False)
    return drawn // CLIPS_OF_A_VIDEO


def distinct(of_batch: Ints) -> int:
    """How many different videos there are."""
    return len(np.unique(of_batch))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("batches", type=int, nargs="?", default=BATCHES)
    main(parser.parse_args().batches)
