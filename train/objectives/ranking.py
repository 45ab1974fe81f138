"""Max-margin ranking with negatives of the same video (Miech et al., ICCV 2019, arXiv:1906.03327, eq. 2 and 3).

    x[i, j] = v_i . t_j                             clip i, narration j
    d[i] = x[i, i]                                  its own
    loss = mean_ij w[i, j] [ relu(margin + x[i, j] - d[i]) + relu(margin + x[j, i] - d[i]) ]

Negatives of the same video are hard, for what they show is alike, and there are few of them. So w lets them weigh as
much as all others: of the weights of an anchor i, which sum to N, those of its own video share one half evenly, those
of other videos the other half. With P pairs of each of V videos that is w = V / 2 within a video and V / (2 (V - 1))
across, as in the authors' release; as there, the anchor itself counts among those of its video, as a constant. An
anchor that has no other pair of its video in the batch, or none of another video, has w = 1.

Scores are whole matrices here, of B x N: with the 2048 pairs of a published step, of size 4096, forward and backward
take 340 MiB beside the embeddings and their gradients.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sayso.config import Settings
from train.distributed import gather, world_size


class RankingSettings(Settings):
    """How far a pair is to lead, and what negatives of the same video weigh."""

    name: Literal["ranking"] = Field("ranking", description="max-margin ranking of clips and narrations")
    margin: float = Field(0.1, ge=0, description="what a pair's score is to be above its negatives'")
    same_video: float | None = Field(
        0.5, gt=0, lt=1, description="weight of negatives of the same video together; null weighs all pairs alike"
    )
    normalised: bool = Field(
        True, description="compare by the cosine, in evaluation too; else by the product of embeddings as they are"
    )


def ranking(
    video: Tensor,
    text: Tensor,
    videos: Tensor,
    margin: float = 0.1,
    mask: Tensor | None = None,
    *,
    same_video: float | None = 0.5,
    normalised: bool = False,
) -> Tensor:
    """The mean loss of this rank's pairs against the batch of all ranks; without a process group, of one batch.

    video (B, D), text (B, D) or bags (B, K, D) of which the first candidate is taken, int64 videos (B,) with equal
    numbers for pairs of one video, bool mask (B,) or (B, K); a pair whose text is missing is left out, as anchor and
    as negative. B is the same on every rank. `same_video` is the weight that negatives of the same video have
    together, None for w = 1. Half precision is computed in float32. Averaged over ranks, gradients are those of one
    process with all pairs.
    """
    there = torch.ones_like(videos, dtype=torch.bool) if mask is None else mask.view(len(videos), -1)[:, 0]
    video, text = _wide(video), _wide(text.view(len(videos), -1, text.shape[-1])[:, 0])
    # With autocast the scores would be rounded to 8 bits, and a margin with them.
    with torch.autocast(video.device.type, enabled=False):
        if normalised:
            video, text = F.normalize(video, dim=1), F.normalize(text, dim=1)
        own = (video * text).sum(dim=1, keepdim=True)
        lead = F.relu(margin - own + video @ gather(text).T) + F.relu(margin - own + text @ gather(video).T)
        weights, pairs = _weights(videos, there, same_video, lead.dtype)
        # Local anchors only: the mean over ranks is that over all pairs.
        return (lead * weights).sum() * world_size() / pairs.clamp(min=1) ** 2


def _wide(embeddings: Tensor) -> Tensor:
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def _weights(videos: Tensor, there: Tensor, same_video: float | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What each pair of the whole batch weighs for each local anchor (B, N), and how many pairs the batch has."""
    all_there = gather(there)
    counted = all_there & there[:, None]
    pairs = all_there.sum(dtype=dtype)
    if same_video is None:
        return counted, pairs
    same = (videos[:, None] == gather(videos)) & counted
    near = same.sum(dim=1, keepdim=True, dtype=dtype)
    mixed = (near > 1) & (near < pairs)
    within = torch.where(mixed, same_video * pairs / near, 1.0)
    across = torch.where(mixed, (1 - same_video) * pairs / (pairs - near), 1.0)
    return torch.where(same, within, across) * counted, pairs


class Ranking(nn.Module):
    """The objective as the training loop calls it."""

    def __init__(self, settings: RankingSettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, video: Tensor, text: Tensor, mask: Tensor, videos: Tensor) -> Tensor:
        """video (B, D), text (B, K, D), bool mask (B, K), int64 videos (B,) of this rank -> scalar; see `ranking`."""
        settings = self.settings
        return ranking(
            video,
            text,
            videos,
            settings.margin,
            mask,
            same_video=settings.same_video,
            normalised=settings.normalised,
        )
