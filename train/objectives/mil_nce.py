"""MIL-NCE: multiple-instance noise-contrastive estimation (Miech et al., CVPR 2020, arXiv:1912.06430, eq. 1).

    s[i, j, k] = v_i . t_jk                          clip i, candidate narration k of clip j
    positives of i: s[i, i, :]                       its own bag
    negatives of i: s[i, j, :] and s[j, i, :], j!=i  its clip with other bags, its bag with other clips
    loss = mean_i [ logsumexp(positives and negatives) - logsumexp(positives) ]

No normalisation and no temperature. `paper` counts the positives once in the denominator. `release` counts them twice,
as the authors' program does (its row block and its column block both hold them), so its floor is log 2.
A candidate that is missing (mask False) is neither a positive nor a negative.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sayso.config import Settings
from train.distributed import gather, rank

Form = Literal["paper", "release"]


class MILNCESettings(Settings):
    """Which of the two published denominators is used."""

    form: Form = Field("paper", description="positives once (paper) or twice (release) in the denominator")


def mil_nce(
    video: Tensor,
    text: Tensor,
    mask: Tensor,
    all_video: Tensor,
    all_text: Tensor,
    all_mask: Tensor,
    *,
    offset: int = 0,
    form: Form = "paper",
) -> Tensor:
    """Mean loss of the local rows against the whole batch.

    video (B, D), text (B, K, D), mask (B, K) are this rank's rows; all_video (N, D), all_text (N, K, D) and
    all_mask (N, K) the whole batch's, in which the local rows stand from `offset` on. A row without any candidate
    counts 0 (it has no positive), but its clip still serves the others as a negative.
    """
    rows = torch.einsum("bd,nkd->bnk", video, all_text)  # (B, N, K): own clip, every bag
    rows = rows.masked_fill(~all_mask, -torch.inf)
    columns = torch.einsum("nd,bkd->bnk", all_video, text)  # (B, N, K): every clip, own bag
    columns = columns.masked_fill(~mask[:, None, :], -torch.inf)

    index = torch.arange(video.shape[0], device=video.device)
    own = index + offset
    positives = rows[index, own]  # (B, K)
    if form == "paper":
        columns = columns.index_put((index, own), columns.new_tensor(-torch.inf))
    everything = torch.cat([rows.flatten(1), columns.flatten(1)], dim=1)
    has_positive = mask.any(dim=1)
    # Rows without a positive are set aside before the logarithm: infinity minus infinity has no gradient.
    bagless = ~has_positive[:, None]
    losses = everything.masked_fill(bagless, 0.0).logsumexp(1) - positives.masked_fill(bagless, 0.0).logsumexp(1)
    return losses.masked_fill(~has_positive, 0.0).mean()


class MILNCE(nn.Module):
    """The objective as the training loop calls it: gathers the other ranks' embeddings, returns the local mean."""

    def __init__(self, settings: MILNCESettings) -> None:
        super().__init__()
        self.form: Form = settings.form

    def forward(self, video: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """video (B, D), text (B, K, D), bool mask (B, K) of this rank -> scalar; B is the same on every rank."""
        video, text = video.float(), text.float()
        offset = rank() * video.shape[0]
        return mil_nce(video, text, mask, gather(video), gather(text), gather(mask), offset=offset, form=self.form)
