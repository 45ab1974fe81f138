"""Put the steps of a task in their order onto the seconds of a video.

    minimise  sum over k of cost[t_k, k]   subject to   t_1 < t_2 < ... < t_K

Each step takes exactly one bin, a bin holds at most one step, bins without a step cost nothing. With
best[t, k] = the least cost of the steps up to k with step k at t:

    best[t, k] = cost[t, k] + min over t' < t of best[t', k - 1]

O(T K). T = K leaves one assignment, one step a bin; the program published with CrossTask ends there in a state that
cannot be reached. T < K leaves none.
"""

import numpy as np
import numpy.typing as npt

Costs = npt.NDArray[np.float64]


def ordered_assignment(cost: Costs) -> list[int] | None:
    """cost (T bins, K steps) -> the bin of each step, rising; of equally cheap ones each as early as it can be.

    None where there are fewer bins than steps.
    """
    bins, steps = cost.shape
    if bins < steps:
        return None
    best = np.full((bins, steps), np.inf)
    best[:, 0] = cost[:, 0]
    for k in range(1, steps):
        cheapest = np.minimum.accumulate(best[:-1, k - 1])  # up to each bin before t
        best[1:, k] = cost[1:, k] + cheapest
    places: list[int] = []
    last = bins
    for k in reversed(range(steps)):
        last = int(best[:last, k].argmin())
        places.append(last)
    return places[::-1]


def spread(bins: int, steps: int) -> list[int] | None:
    """Steps at even distances over the video, which needs no model. None where there are fewer bins than steps."""
    return None if bins < steps else [int((k + 0.5) * bins / steps) for k in range(steps)]
