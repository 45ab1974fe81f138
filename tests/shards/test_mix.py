"""Mixing: exact proportions in every block, arithmetic alone, each source at its own pace."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sayso.errors import ConfigError
from shards.mix import Mix

WEIGHTS = st.lists(st.sampled_from([0.01, 0.25, 0.3, 1.0, 2.5, 7.0, 40.0]), min_size=1, max_size=5)


@settings(deadline=None, max_examples=50)
@given(WEIGHTS, st.integers(0, 3), st.integers(0, 10**7))
def test_every_block_holds_each_sources_exact_share(weights: list[float], seed: int, block: int) -> None:
    mix = Mix(weights, seed=seed)
    sources, _ = mix.take(np.arange(block * mix.block, (block + 1) * mix.block))
    for source, weight in enumerate(weights):
        exact = Fraction(str(weight)) / sum(Fraction(str(each)) for each in weights)
        assert Fraction(int((sources == source).sum()), mix.block) == exact


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(10**6, 10**9), min_size=2, max_size=5))
def test_proportions_of_very_large_numbers_are_kept_closely(weights: list[int]) -> None:
    mix = Mix(weights, seed=0)
    sources, _ = mix.take(np.arange(mix.block))
    shares = np.bincount(sources, minlength=len(weights)) / mix.block
    assert shares == pytest.approx(np.array(weights) / sum(weights), abs=2 / 2**16)


@settings(deadline=None, max_examples=50)
@given(WEIGHTS, st.integers(0, 3))
def test_the_samples_of_a_source_are_numbered_on_without_end(weights: list[float], seed: int) -> None:
    mix = Mix(weights, seed=seed)
    sources, numbers = mix.take(np.arange(3 * mix.block))
    for source in range(len(weights)):
        taken = np.sort(numbers[sources == source])
        assert taken.tolist() == list(range(len(taken)))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_where_a_position_leads_does_not_depend_on_what_was_asked_before(positions: list[int]) -> None:
    asked = np.array(positions)
    together = Mix([3, 1, 0.5], seed=1).take(asked)
    mix = Mix([3, 1, 0.5], seed=1)
    for number, position in enumerate(positions):
        alone = mix.take(np.array([position]))
        assert [int(found[0]) for found in alone] == [int(found[number]) for found in together]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**10))
def test_one_export_is_a_mix_of_one(position: int) -> None:
    mix = Mix([0.7], seed=2)
    sources, numbers = mix.take(np.array([position, position + 1]))
    assert sources.tolist() == [0, 0]
    assert sorted(numbers // mix.block) == [position // mix.block, (position + 1) // mix.block]


def test_sources_are_scattered_over_a_block() -> None:
    sources, _ = Mix([1, 1], seed=0).take(np.arange(1024))
    changes = int((sources[1:] != sources[:-1]).sum())
    assert 450 < changes < 570  # 512 expected of coins that are thrown


def test_weights_that_cannot_be_mixed_exactly_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights 1, 1e-07 lie too far apart"):
        Mix([1, 1e-7], seed=0)
