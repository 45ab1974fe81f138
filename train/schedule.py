"""The learning rate's way: linear from 0 over the warm-up, then as the schedule's name says.

cosine    half a cosine to 0 at the last step
linear    a line to 0 at the last step
constant  as it is
decay     multiplied with `decay` after each epoch (HowTo100M ranking: 0.9)
"""

import math
from typing import Literal

ScheduleName = Literal["cosine", "linear", "constant", "decay"]


def rate_factor(
    step: int,
    *,
    warmup: int,
    total: int,
    name: ScheduleName = "cosine",
    decay: float = 1.0,
    per_epoch: int = 1,
) -> float:
    """What the learning rate is multiplied with at a step counted from 0; `per_epoch` counts the steps of an epoch."""
    if step < warmup:
        return (step + 1) / warmup
    gone = min(1.0, (step - warmup) / max(1, total - warmup))
    match name:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * gone))
        case "linear":
            return 1 - gone
        case "constant":
            return 1.0
        case "decay":
            return math.pow(decay, step // per_epoch)
