"""From narrations to the windows that are cut, and to the narrations that may describe what is seen there.

Short windows and bags are MIL-NCE's (Miech et al., 2020): the clip is taken around the narration's centre, because
people speak a little before or after they act, and the narrations nearest in time are candidates for what is seen.
Long windows lie one after the other along the video, each with all that is said in it, for models of longer context
(Han et al., 2022, align the sentences of 64 s with their picture).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def widen(start: float, end: float, *, least: float, most: float, duration: float) -> tuple[float, float]:
    """The window [start, end) around a narration's centre, in seconds.

    It is as long as the narration, but at least `least` and at most `most`, and lies inside [0, duration): at the
    ends of the video it is shifted, and cut only where the video is shorter than the window.
    """
    length = min(max(end - start, least), most, duration)
    begin = min(max((start + end - length) / 2, 0.0), duration - length)
    return round(begin, 3), round(begin + length, 3)


def along(duration: float, *, length: float, stride: float) -> list[tuple[float, float]]:
    """The windows [start, end) of `length` seconds that begin each `stride` seconds in [0, duration).

    The last is shifted so that it ends with the video; a video shorter than a window is one window.
    """
    if duration <= length:
        return [(0.0, round(duration, 3))]
    count = 1 + math.ceil((duration - length) / stride)
    begins = [min(number * stride, duration - length) for number in range(count)]
    # Two that begin in the same millisecond are one: their samples would have the same key.
    return list(dict.fromkeys((round(begin, 3), round(begin + length, 3)) for begin in begins))


def nearest(starts: Sequence[float], ends: Sequence[float], anchor: int, count: int) -> list[int]:
    """The indices of at most `count` narrations around `anchor`, in the order in which the bag grows.

    The bag is contiguous in the video's narrations (sorted by start). It grows, each time, by the neighbour that
    keeps its time span shortest; ties go right. At the ends of the video it grows to one side only and may stay
    smaller than `count`: nothing is repeated. The first k of a bag of n > k are the bag of k.
    """
    left = right = anchor
    first, last = starts[anchor], ends[anchor]
    bag = [anchor]
    while len(bag) < count and (left > 0 or right < len(starts) - 1):
        go_left = left > 0
        if go_left and right < len(starts) - 1:
            span_left = max(last, ends[left - 1]) - min(first, starts[left - 1])
            span_right = max(last, ends[right + 1]) - min(first, starts[right + 1])
            go_left = span_left < span_right
        if go_left:
            left -= 1
        else:
            right += 1
        added = left if go_left else right
        bag.append(added)
        first, last = min(first, starts[added]), max(last, ends[added])
    return bag
