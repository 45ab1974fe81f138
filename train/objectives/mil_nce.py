"""MIL-NCE: multiple-instance noise-contrastive estimation (Miech et al., CVPR 2020, arXiv:1912.06430, eq. 1).

    s[i, j, k] = v_i . t_jk                          clip i, candidate narration k of clip j
    positives of i: s[i, i, :]                       its own bag
    negatives of i: s[i, j, :] and s[j, i, :], j!=i  its clip with other bags, its bag with other clips
    loss = mean_i [ logsumexp(positives and negatives) - logsumexp(positives) ]

No normalisation and no temperature. `paper` counts the positives once in the denominator. `release` counts them twice,
as the authors' program does (its row block and its column block both hold them), so its floor is log 2.
A candidate that is missing (mask False) is neither a positive nor a negative.

All scores at once would be two B x N x K matrices and their gradients: 11 GB a rank at B = N = 8192, K = 5. So they
are made block by block, and made again in backward: memory is what the embeddings take, and one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sayso.config import Settings
from sayso.errors import ConfigError
from train.distributed import gather, rank

Denominator = Literal["paper", "release"]

# Scores of a block, rows and columns each. On a CPU a block should stay in the cache, a GPU wants large products.
_MOST_SCORES = 1 << 25
_BLOCK_SCORES = {"cpu": 1 << 20}


class MILNCESettings(Settings):
    """Which of the two published denominators is used, and how much is computed at once."""

    normalised: ClassVar[bool] = False

    name: Literal["mil_nce"] = Field("mil_nce", description="clips against bags of narrations")
    denominator: Denominator = Field("paper", description="positives once (paper) or twice (release) in it")
    block: int | None = Field(
        None, ge=1, description="clips of the global batch that are compared at once; chosen by memory where not given"
    )


def mil_nce(
    video: Tensor,
    text: Tensor,
    mask: Tensor | None = None,
    denominator: Denominator = "paper",
    block: int | None = None,
) -> Tensor:
    """The mean loss of this rank's rows against the batch of all ranks; without a process group, of one batch.

    video (B, D), text (B, K, D), bool mask (B, K), all candidates there where it is None; B is the same on every rank.
    A row without any candidate counts 0 (it has no positive), but its clip still serves the others as a negative.
    Half precision is computed in float32. Averaged over ranks, gradients are those of one process with all rows.
    """
    # Before the gather: what each rank finds for a row is then added up in float32, and rounded once.
    video, text = _wide(video), _wide(text)
    if mask is None:
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    whole = gather(video), gather(text), gather(mask)
    offset = rank() * video.shape[0]
    return mil_nce_rows(video, text, mask, *whole, offset=offset, denominator=denominator, block=block)


def mil_nce_rows(
    video: Tensor,
    text: Tensor,
    mask: Tensor,
    all_video: Tensor,
    all_text: Tensor,
    all_mask: Tensor,
    *,
    offset: int = 0,
    denominator: Denominator = "paper",
    block: int | None = None,
) -> Tensor:
    """The mean loss of the rows video (B, D), text (B, K, D), mask (B, K) against a whole batch that is given.

    all_video (N, D), all_text (N, K, D), all_mask (N, K); the rows stand in it from `offset` on. ConfigError where
    there is no such denominator, or a block holds no clip.
    """
    if denominator not in get_args(Denominator):
        raise ConfigError(f"denominator {denominator!r}: give {' or '.join(get_args(Denominator))}")
    if block is not None and block < 1:
        raise ConfigError(f"block {block}: give 1 or more clips, or None")
    embeddings = [_wide(each) for each in (video, text, all_video, all_text)]
    block = block or max(1, _BLOCK_SCORES.get(video.device.type, _MOST_SCORES) // mask.numel())
    # With autocast the scores, which are not normalised, would be rounded to 8 bits.
    with torch.autocast(video.device.type, enabled=False):
        loss = _BlockwiseMILNCE.apply(  # type: ignore[no-untyped-call]  # torch leaves apply() untyped
            *embeddings[:2], mask, *embeddings[2:], all_mask, offset, denominator, block
        )
    return cast(Tensor, loss)


def _wide(embeddings: Tensor) -> Tensor:
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


class _Blocks:
    """The scores of B local rows, from `offset` on, with the whole batch of N, `block` clips of it at once."""

    def __init__(
        self,
        video: Tensor,
        text: Tensor,
        mask: Tensor,
        all_video: Tensor,
        all_text: Tensor,
        all_mask: Tensor,
        offset: int,
        denominator: Denominator,
        block: int,
    ) -> None:
        self.video, self.text, self.mask = video, text.flatten(0, 1), mask
        self.all_video, self.all_text, self.all_mask = all_video, all_text, all_mask
        self.offset, self.block = offset, block
        self.positives_once = denominator == "paper"

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
        """Each block: its clips, rows (B, n, K), columns (n, B, K), and, of the local rows whose own clip is among
        the block's, their numbers here and their places in the block.

        rows: local clip with the block's bags. columns: the block's clips with the local bags. -inf where a candidate
        is missing, and in the columns where a positive stands already among the rows.
        """
        local, candidates = self.mask.shape
        for begin in range(0, self.all_video.shape[0], self.block):
            part = slice(begin, min(begin + self.block, self.all_video.shape[0]))
            rows = (self.video @ self.all_text[part].flatten(0, 1).T).view(local, -1, candidates)
            rows.masked_fill_(~self.all_mask[part], -torch.inf)
            columns = (self.all_video[part] @ self.text.T).view(-1, local, candidates)
            columns.masked_fill_(~self.mask, -torch.inf)
            first, last = max(begin, self.offset), min(part.stop, self.offset + local)
            own = torch.arange(first, max(first, last), device=rows.device)
            here, there = own - self.offset, own - begin
            if self.positives_once:
                columns[there, here] = -torch.inf
            yield part, rows, columns, here, there


class _BlockwiseMILNCE(torch.autograd.Function):
    """Forward keeps two numbers a row: the logarithms of its denominator and of its numerator."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        blocks = _Blocks(*inputs)
        everything = torch.full_like(blocks.video[:, 0], -torch.inf)
        numerator = everything.clone()
        for _, rows, columns, here, there in blocks:
            numerator[here] = rows[here, there].logsumexp(1)
            for scores, other_than_rows in ((rows, (1, 2)), (columns, (0, 2))):
                everything = torch.logaddexp(everything, scores.logsumexp(other_than_rows))
        has_positive = blocks.mask.any(dim=1)
        ctx.rest = inputs[6:]
        ctx.save_for_backward(*inputs[:6], everything, numerator, has_positive)
        return (everything - numerator).masked_fill(~has_positive, 0.0).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, everything, numerator, has_positive = ctx.saved_tensors
        blocks = _Blocks(*inputs, *ctx.rest)
        # The gradient of a score is its share of the denominator, less its share of the numerator. Rows without a
        # positive have none: exp(score - inf) = 0.
        everything = everything.masked_fill(~has_positive, torch.inf)
        numerator = numerator.masked_fill(~has_positive, torch.inf)
        of_video, of_text = torch.zeros_like(blocks.video), torch.zeros_like(blocks.text)
        of_all_video, of_all_text = torch.empty_like(blocks.all_video), torch.empty_like(blocks.all_text)
        for part, rows, columns, here, there in blocks:
            share = (rows[here, there] - numerator[here, None]).exp_()
            rows.sub_(everything[:, None, None]).exp_()
            rows[here, there] -= share
            columns.sub_(everything[:, None]).exp_()
            flat_rows, flat_columns = rows.flatten(1), columns.flatten(1)
            texts = blocks.all_text[part].flatten(0, 1)
            of_video.addmm_(flat_rows, texts)
            of_text.addmm_(flat_columns.T, blocks.all_video[part])
            of_all_text[part] = (flat_rows.T @ blocks.video).view(blocks.all_text[part].shape)
            torch.mm(flat_columns, blocks.text, out=of_all_video[part])
        scale = gradient / blocks.video.shape[0]
        found = (of_video, of_text.view(inputs[1].shape), None, of_all_video, of_all_text, None)
        return *(each if each is None else each.mul_(scale) for each in found), None, None, None


class MILNCE(nn.Module):
    """The objective as the training loop calls it."""

    def __init__(self, settings: MILNCESettings) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, video: Tensor, text: Tensor, mask: Tensor, videos: Tensor | None = None) -> Tensor:
        """video (B, D), text (B, K, D), bool mask (B, K) of this rank -> scalar; see `mil_nce`.

        Clips of the same video (`videos`) are negatives like any other.
        """
        return mil_nce(video, text, mask, self.settings.denominator, self.settings.block)
