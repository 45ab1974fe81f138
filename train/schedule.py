"""The learning rate's way: linear from 0 over the warm-up, then half a cosine to 0 at the last step."""

import math


def rate_factor(step: int, *, warmup: int, total: int) -> float:
    """What the learning rate is multiplied with at a step counted from 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
