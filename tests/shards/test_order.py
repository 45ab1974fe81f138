"""The shuffle: a permutation, well mixed, and light for very many samples."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.order import Order, permutation, uniforms


@given(st.lists(st.integers(0, 20), max_size=20), st.integers(0, 3), st.integers(1, 8))
def test_every_unit_comes_once(sizes: list[int], epoch: int, block_shards: int) -> None:
    order = Order(sizes, seed=5, epoch=epoch, block_shards=block_shards)
    units = [order[position] for position in range(len(order))]
    assert sorted(units) == [(shard, unit) for shard, size in enumerate(sizes) for unit in range(size)]


def test_epochs_and_seeds_differ_and_are_never_drawn_anew() -> None:
    def first(seed: int, epoch: int) -> list[tuple[int, int]]:
        order = Order([7] * 9, seed=seed, epoch=epoch, block_shards=4)
        return [order[position] for position in range(len(order))]

    assert first(1, 0) == first(1, 0)
    assert len({tuple(first(seed, epoch)) for seed in range(5) for epoch in range(5)}) == 25
    # Written down: a resumed run must meet the same order whatever was upgraded in between.
    assert permutation("written down", 8).tolist() == [7, 5, 6, 4, 3, 0, 1, 2]
    assert uniforms("written down", 1) == [0.8555084780096438]


def test_where_units_go_is_uniform() -> None:
    places = np.array([np.argsort(permutation(f"draw {draw}", 10)) for draw in range(4000)])
    counts = np.array([np.bincount(column, minlength=10) for column in places.T])
    # 400 expected in each of 100 cells, standard deviation 19: a cell off by 100 is no accident.
    assert abs(counts - 400).max() < 100


def test_a_batch_mixes_shards_as_a_full_shuffle_would() -> None:
    order = Order([1000] * 640, seed=0, epoch=0, block_shards=64)
    shards = {order[position][0] for position in range(256)}
    # 256 draws from 64 shards meet 64 * (1 - (63/64)^256) = 63 of them.
    assert len(shards) >= 58


def test_a_hundred_million_samples_are_no_burden() -> None:
    began = time.perf_counter()
    order = Order(np.full(100_000, 1000), seed=0, epoch=0, block_shards=64)
    units = [order[len(order) // 2 + step] for step in range(1000)]
    assert time.perf_counter() - began < 2
    assert len(set(units)) == 1000


def test_positions_outside_the_epoch_are_refused() -> None:
    order = Order([2, 3], seed=0, epoch=0, block_shards=1)
    for position in (-1, 5):
        with pytest.raises(IndexError):
            order[position]
