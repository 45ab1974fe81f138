"""Windows and bags against their rules, written out the long way."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.windows import along, nearest, widen

LIMITS = {"least": 5.0, "most": 60.0}


@pytest.mark.parametrize(
    ("start", "end", "duration", "expected"),
    [
        (10, 12, 100, (8.5, 13.5)),
        (10, 18, 100, (10, 18)),
        (0.5, 1.5, 100, (0, 5)),
        (98, 99, 100, (95, 100)),
        (1, 2, 3, (0, 3)),
        (0, 90, 100, (15, 75)),
    ],
    ids=["widened", "long enough", "shifted right", "shifted left", "short video", "too long"],
)
def test_a_window_is_the_narration_widened_around_its_centre_inside_the_video(
    start: float, end: float, duration: float, expected: tuple[float, float]
) -> None:
    assert widen(start, end, duration=duration, **LIMITS) == expected


@given(st.floats(0, 100), st.floats(0, 30), st.floats(0.5, 120))
def test_windows_lie_in_the_video_and_are_as_long_as_they_can_be(start: float, length: float, duration: float) -> None:
    begin, end = widen(start, start + length, duration=duration, **LIMITS)
    assert 0 <= begin < end <= duration + 0.001
    assert end - begin == pytest.approx(min(max(length, 5), duration), abs=0.0021)


@given(st.floats(0.5, 500), st.floats(1, 64), st.floats(0.1, 1))
def test_long_windows_leave_nothing_out_and_are_all_as_long(duration: float, length: float, share: float) -> None:
    windows = along(duration, length=length, stride=length * share)
    assert windows[0][0] == 0
    assert windows[-1][1] == pytest.approx(duration, abs=0.001)
    assert all(end - start == pytest.approx(min(length, duration), abs=0.0011) for start, end in windows)
    assert all(before < start <= end + 0.001 for (before, end), (start, _) in pairwise(windows))


def test_the_last_long_window_ends_with_the_video() -> None:
    assert along(100, length=64, stride=32) == [(0, 64), (32, 96), (36, 100)]
    assert along(96, length=64, stride=32) == [(0, 64), (32, 96)]
    assert along(10, length=64, stride=32) == [(0, 10)]


def bag_by_rule(spans: list[tuple[float, float]], anchor: int, count: int) -> list[int]:
    """Grow by trying both larger bags and measuring each from scratch."""

    def span(bag: list[int]) -> float:
        return max(spans[i][1] for i in bag) - min(spans[i][0] for i in bag)

    bag = [anchor]
    while len(bag) < count:
        grown = [[*bag, i] for i in (max(bag) + 1, min(bag) - 1) if 0 <= i < len(spans)]
        if not grown:
            break
        bag = min(grown, key=span)
    return bag


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), min_size=1, max_size=12),
    st.integers(0, 11),
    st.integers(1, 14),
)
def test_bags_grow_as_the_rule_says(spans: list[tuple[int, int]], anchor: int, count: int) -> None:
    narrations = sorted((float(start), float(start + length)) for start, length in spans)
    anchor %= len(narrations)
    bag = nearest([s for s, _ in narrations], [e for _, e in narrations], anchor, count)
    assert bag == bag_by_rule(narrations, anchor, count)
    assert len(bag) == len(set(bag)) == min(count, len(narrations))


def test_ties_go_right_and_ends_are_not_repeated() -> None:
    starts, ends = [0.0, 10.0, 20.0], [5.0, 15.0, 25.0]
    assert nearest(starts, ends, 1, 2) == [1, 2]
    assert nearest(starts, ends, 0, 5) == [0, 1, 2]
