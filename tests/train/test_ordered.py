from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.evaluate.ordered import Costs, ordered_assignment, spread


def cheapest_by_trying_all(cost: Costs) -> float:
    bins, steps = cost.shape
    return min(
        sum(float(cost[place, step]) for step, place in enumerate(places))
        for places in itertools.combinations(range(bins), steps)
    )


@st.composite
def costs(draw: st.DrawFn) -> Costs:
    """Up to 9 bins and as many steps; whole numbers of which many are equal, negative ones among them."""
    steps = draw(st.integers(1, 5))
    bins = draw(st.integers(steps, 9))
    values = draw(st.lists(st.integers(-3, 6), min_size=bins * steps, max_size=bins * steps))
    return np.array(values, dtype=np.float64).reshape(bins, steps)


@given(costs())
@settings(max_examples=300, deadline=None)
def test_no_assignment_is_cheaper(cost: Costs) -> None:
    places = ordered_assignment(cost)
    assert places is not None
    assert len(places) == cost.shape[1]
    assert all(before < after for before, after in itertools.pairwise(places))
    assert all(place in range(len(cost)) for place in places)
    assert sum(cost[place, step] for step, place in enumerate(places)) == cheapest_by_trying_all(cost)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_as_many_bins_as_steps_leave_one_assignment(steps: int, seed: int) -> None:
    cost = np.random.default_rng(seed).normal(size=(steps, steps))
    assert ordered_assignment(cost) == list(range(steps))


@pytest.mark.parametrize("assign", [lambda bins, steps: ordered_assignment(np.zeros((bins, steps))), spread])
def test_fewer_bins_than_steps_leave_none(assign: object) -> None:
    assert callable(assign)
    assert assign(2, 3) is None


def test_of_equally_cheap_ones_the_earliest() -> None:
    assert ordered_assignment(np.zeros((6, 3))) == [0, 1, 2]


def test_the_order_stands_over_the_cheapest_bins() -> None:
    cost = np.array([[5.0, 0], [5, 5], [0, 5], [5, 3]])
    assert ordered_assignment(cost) == [2, 3]  # step 1 is cheapest at 0, where step 0 cannot come before it


def test_steps_at_even_distances() -> None:
    assert spread(10, 2) == [2, 7]
    assert spread(4, 4) == [0, 1, 2, 3]


def test_an_hour_of_seconds_is_quick() -> None:
    places = ordered_assignment(np.random.default_rng(0).normal(size=(36_000, 12)))
    assert places is not None and len(places) == 12
