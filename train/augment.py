"""Change the colours of training clips, so that they are not told apart by a tint.

Each clip gets its own gain and offset for each channel, the same in all its frames, and some clips lose their colours.
The numbers follow from (seed, step, rank) alone: a run that goes on after a kill sees the clips it would have seen.
"""

import torch
from pydantic import Field
from torch import Tensor

from sayso.config import Settings

OFFSET_SHARE = 0.3  # offsets are this much smaller than gains, so that black and white stay apart


class AugmentSettings(Settings):
    """How much is changed; nothing by default, as MIL-NCE is published."""

    colour: float = Field(0.0, ge=0, le=1, description="channels are multiplied by up to 1 ± this, and shifted")
    grey: float = Field(0.0, ge=0, le=1, description="share of the clips that lose their colours")

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self.colour > 0 or self.grey > 0


def augment(frames: Tensor, settings: AugmentSettings, *, seed: int) -> Tensor:
    """Float frames (B, 3, T, H, W) in [0, 1] -> the same shape and range."""
    if not settings.active:
        return frames
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(frames.shape[0], 7, generator=generator).to(frames.device)
    gain = 1 + settings.colour * (2 * draws[:, 0:3] - 1)
    offset = OFFSET_SHARE * settings.colour * (2 * draws[:, 3:6] - 1)
    changed = frames * gain[:, :, None, None, None] + offset[:, :, None, None, None]
    grey = draws[:, 6] < settings.grey
    changed[grey] = changed[grey].mean(dim=1, keepdim=True).expand_as(changed[grey])
    return changed.clamp_(0, 1)
