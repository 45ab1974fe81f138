"""What all ranks agree on after every step: that its loss is a number, and whether somebody asked the run to stop.

A step whose loss or gradient is not finite ends the run within that step, on all ranks, before a checkpoint can hold
anything of it. What it was fed stays behind: FOLDER/nan-step-N.json names the samples of each micro-batch.
"""

import json
import math
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sayso.errors import NotFinite
from train.distributed import barrier, rank, world_size

LAST_LOSSES = 20  # so many are kept for the report


@dataclass
class Taken:
    """A step as one rank took it."""

    keys: list[list[str]] = field(default_factory=list)
    """The samples of each micro-batch."""
    inputs: list[Tensor] = field(default_factory=list)
    """The shapes of a micro-batch's fields: tensors on the meta device."""
    losses: list[Tensor] = field(default_factory=list)
    """The loss of each micro-batch on this rank."""
    norm: float | None = None
    """Norm of the step's gradient before clipping, the same on all ranks; None where it may overflow (fp16)."""
    scale: float | None = None
    """With fp16 what the next loss is scaled by, the same on all ranks."""
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds until the data were there."""


class Guard:
    """Looks at every step. `stop` is set when this rank was asked to stop."""

    def __init__(self, folder: Path, stop: threading.Event, device: torch.device) -> None:
        self._folder, self._stop, self._device = folder, stop, device
        self._last: deque[float] = deque(maxlen=LAST_LOSSES)

    def agree(self, step: int, taken: Taken) -> tuple[float, bool]:
        """The step's loss, a mean over micro-batches and ranks, and whether any rank was asked to stop.

        Raises NotFinite on all ranks alike if the loss or the gradient is not finite; of fp16's gradient, which may be
        infinite at times, once it is with any scale of the loss.
        """
        own = torch.stack(taken.losses).float().mean()
        shared = torch.stack([own, torch.tensor(float(self._stop.is_set()), device=self._device)])
        if world_size() > 1:
            dist.all_reduce(shared)
        total, asked = shared.tolist()
        loss = total / world_size()
        if not math.isfinite(loss):
            self._give_up(step, taken, f"the loss is {loss}")
        if taken.norm is not None and not math.isfinite(taken.norm):
            self._give_up(step, taken, f"the gradient's norm is {taken.norm}, the loss is {loss:.4g}")
        if taken.scale is not None and taken.scale < 1:
            self._give_up(step, taken, f"the gradient is not finite in fp16 even unscaled, the loss is {loss:.4g}")
        self._last.append(loss)
        return loss, asked > 0

    def _give_up(self, step: int, taken: Taken, what: str) -> None:
        path = self._folder / f"nan-step-{step}.json"
        content = {"step": step, "what": what, "last_losses": list(self._last), "batch": _of_all_ranks(taken)}
        if rank() == 0:
            path.write_text(json.dumps(content, indent=1))
        barrier()
        raise NotFinite(
            f"step {step}: {what}; nothing of this step is in a checkpoint, and {path} names the samples of its batch. "
            "A lower optimiser.lr, a longer schedule.warmup_steps or optimiser.clip_gradient may help"
        )


def _of_all_ranks(taken: Taken) -> list[dict[str, Any]]:
    own = [
        # JSON has no word for what is not a number.
        {"rank": rank(), "micro_batch": number, "loss": str(loss.item()), "keys": keys}
        for number, (loss, keys) in enumerate(zip(taken.losses, taken.keys, strict=True))
    ]
    if world_size() == 1:
        return own
    gathered: list[list[dict[str, Any]]] = [[] for _ in range(world_size())]
    dist.all_gather_object(gathered, own)
    return [micro_batch for of_rank in gathered for micro_batch in of_rank]
