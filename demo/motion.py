"""How fast each action goes, and when in its cycle it strikes: shared by what is seen and what is heard.

The phase of an action counts its cycles since the step began; the picture moves with it and sounds start at its
strikes, so that a chop is heard when the knife lands.
"""

from collections.abc import Iterator

from demo.truth import Seen

# Cycles a second at pace 1, and where in the cycle the strikes are (none: the sound goes on all the time).
CYCLES_HZ = {"cut": 2.0, "peel": 0.9, "wash": 1.3, "pour": 0.5, "stir": 1.0, "fold": 0.42, "roll": 0.7, "press": 0.75,
             "hammer": 1.5, "tighten": 0.7, "paint": 0.8, "shake": 2.2}  # fmt: skip
STRIKES: dict[str, tuple[float, ...]] = {
    "cut": (0.5,), "peel": (0.0,), "wash": (0.0, 0.5), "pour": (), "stir": (0.0, 0.5), "fold": (0.25,),
    "roll": (0.0, 0.5), "press": (0.5,), "hammer": (0.5,), "tighten": (0.0, 0.15, 0.3, 0.45), "paint": (0.0, 0.5),
    "shake": (0.0, 0.5),
}  # fmt: skip


def rate(action: str, pace: float) -> float:
    """Cycles a second."""
    return CYCLES_HZ[action] * pace


def strike_times(seen: Seen, pace: float) -> Iterator[float]:
    """The times in the video at which the action strikes, in order."""
    frequency = rate(seen.action, pace)
    cycle = 0
    while True:
        for part in STRIKES[seen.action]:
            time = seen.start + (cycle + part) / frequency
            if time >= seen.end:
                return
            yield time
        if not STRIKES[seen.action]:
            return
        cycle += 1


# How long the sound of one strike rings, in seconds.
RING = {"cut": 0.12, "peel": 0.62, "wash": 0.36, "stir": 0.42, "fold": 0.5, "roll": 0.6, "press": 0.55, "hammer": 0.22,
        "tighten": 0.06, "paint": 0.5, "shake": 0.16}  # fmt: skip


def sound_span(seen: Seen, pace: float) -> tuple[float, float]:
    """From the first strike of a step to the end of its last, inside the step."""
    times = list(strike_times(seen, pace))
    if not times:
        return seen.start, seen.end
    return times[0], min(times[-1] + RING[seen.action], seen.end)
