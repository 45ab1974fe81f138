import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sayso.errors import ConfigError
from tests.ranks import averaged, be_a_rank
from train.objectives.mil_nce import MILNCE, Denominator, MILNCESettings, mil_nce


def objective(denominator: Denominator = "paper") -> MILNCE:
    return MILNCE(MILNCESettings(denominator=denominator))


def bags(clips: int = 6, candidates: int = 3, size: int = 8, missing: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(clips)
    video = torch.randn(clips, size, generator=generator, requires_grad=True)
    text = torch.randn(clips, candidates, size, generator=generator, requires_grad=True)
    mask = torch.rand(clips, candidates, generator=generator) >= missing
    mask[:, 0] = True
    return video, text, mask


def brute_force(video: Tensor, text: Tensor, mask: Tensor, denominator: Denominator) -> float:
    """The formula term by term, in double precision."""
    clips, candidates = mask.shape
    v, t = video.detach().double(), text.detach().double()
    score = [[[math.exp(float(v[i] @ t[j, k])) for k in range(candidates)] for j in range(clips)] for i in range(clips)]
    losses = []
    for i in range(clips):
        positives = sum(score[i][i][k] for k in range(candidates) if mask[i, k])
        negatives = 0.0
        for j in range(clips):
            for k in range(candidates):
                if j != i and mask[j, k]:
                    negatives += score[i][j][k]
                if j != i and mask[i, k]:
                    negatives += score[j][i][k]
        held = positives if denominator == "paper" else 2 * positives
        losses.append(math.log(held + negatives) - math.log(positives))
    return sum(losses) / clips


@pytest.mark.parametrize("denominator", ["paper", "release"])
def test_equals_the_formula_term_by_term(denominator: Denominator) -> None:
    video, text, mask = bags()
    assert objective(denominator)(video, text, mask).item() == pytest.approx(
        brute_force(video, text, mask, denominator), rel=1e-5
    )


def test_a_bag_of_one_is_symmetric_nce() -> None:
    video, text, mask = bags(candidates=1)
    scores = video @ text[:, 0].T
    off = scores.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    expected = torch.logsumexp(torch.cat([scores, off.T], dim=1), dim=1) - scores.diag()
    torch.testing.assert_close(objective()(video, text, mask), expected.mean())


def test_order_within_bags_and_of_clips_does_not_matter() -> None:
    video, text, mask = bags()
    loss = objective()(video, text, mask)
    torch.testing.assert_close(objective()(video, text.flip(1), mask.flip(1)), loss)
    shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(objective()(video[shuffled], text[shuffled], mask[shuffled]), loss)


def test_perfect_scores_reach_each_forms_floor() -> None:
    video = 20 * torch.eye(4)
    text, mask = video[:, None, :].expand(4, 2, 4), torch.ones(4, 2, dtype=torch.bool)
    assert objective("paper")(video, text, mask).item() == pytest.approx(0, abs=1e-5)
    assert objective("release")(video, text, mask).item() == pytest.approx(math.log(2), abs=1e-5)


def test_missing_candidates_change_nothing_and_get_no_gradient() -> None:
    video, text, mask = bags()
    loss = objective()(video, text, mask)
    garbage = text.detach().masked_fill(~mask[..., None], 1e4).requires_grad_()
    again = objective()(video, garbage, mask)
    torch.testing.assert_close(again, loss)
    torch.autograd.backward(again)
    assert garbage.grad is not None
    assert garbage.grad[~mask].eq(0).all()
    assert garbage.grad[mask].ne(0).any()


@pytest.mark.parametrize("denominator", ["paper", "release"])
def test_a_clip_without_any_candidate_is_only_a_negative(denominator: Denominator) -> None:
    video, text, mask = bags()
    mask[2] = False
    loss = objective(denominator)(video, text, mask)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    assert video.grad is not None
    assert video.grad.isfinite().all()
    assert video.grad[2].ne(0).any()
    assert text.grad is not None
    assert text.grad.isfinite().all()


def naive(video: Tensor, text: Tensor, mask: Tensor, denominator: Denominator) -> Tensor:
    """All scores at once, differentiated by torch."""
    scores = torch.einsum("id,jkd->ijk", video, text).masked_fill(~mask, -torch.inf)
    own = torch.eye(len(video), dtype=torch.bool)[:, :, None]
    columns = scores.transpose(0, 1).masked_fill(own, -torch.inf) if denominator == "paper" else scores.transpose(0, 1)
    everything = torch.cat([scores, columns], dim=1).flatten(1).logsumexp(1)
    return (everything - scores[torch.arange(len(video)), torch.arange(len(video))].logsumexp(1)).mean()


@settings(max_examples=60, deadline=None)
@given(
    clips=st.integers(1, 12),
    candidates=st.integers(1, 6),
    block=st.one_of(st.none(), st.integers(1, 14)),
    missing=st.floats(0, 0.9),
    denominator=st.sampled_from(get_args(Denominator)),
)
def test_any_block_gives_the_value_and_gradients_of_all_at_once(
    clips: int, candidates: int, block: int | None, missing: float, denominator: Denominator
) -> None:
    video, text, mask = bags(clips, candidates, missing=missing)
    found: list[list[Tensor]] = []
    for blockwise in (True, False):
        v, t = (each.detach().double().requires_grad_() for each in (video, text))
        loss = mil_nce(v, t, mask, denominator, block) if blockwise else naive(v, t, mask, denominator)
        torch.autograd.backward(3 * loss)
        assert v.grad is not None
        assert t.grad is not None
        found.append([loss.detach(), v.grad, t.grad])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_no_mask_means_that_nothing_is_missing() -> None:
    video, text, mask = bags(missing=0)
    torch.testing.assert_close(mil_nce(video, text), mil_nce(video, text, mask))


def test_a_mistyped_denominator_is_not_taken_for_the_other() -> None:
    video, text, mask = bags()
    with pytest.raises(ConfigError, match="denominator 'papre': give paper or release"):
        mil_nce(video, text, mask, "papre")  # type: ignore[arg-type]  # as in a notebook
    for block in (0, -3):
        with pytest.raises(ConfigError, match=f"block {block}: give 1 or more"):
            mil_nce(video, text, mask, block=block)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_single(autocast: bool) -> None:
    video, text, mask = bags(clips=40, size=64)
    half, half_text = video.detach().bfloat16().requires_grad_(), text.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = mil_nce(half, half_text, mask)
    expected = naive(half.detach().double(), half_text.detach().double(), mask, "paper")
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    torch.autograd.backward(loss)
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.isfinite().all()


def test_large_scores_do_not_overflow() -> None:
    video, text, mask = bags()
    loss = objective()(video * 100, text * 100, mask)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    assert video.grad is not None
    assert video.grad.isfinite().all()


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.video, self.text = nn.Linear(8, 5), nn.Linear(8, 5)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def loss(self, rows: slice, denominator: Denominator) -> Tensor:
        video, text, mask = bags(clips=12)
        mask[:3] = False  # of four ranks the first then has no positive at all, and of two it has some
        found: Tensor = objective(denominator)(self.video(video[rows]), self.text(text[rows]), mask[rows])
        return found


def figures(rows: slice) -> dict[str, list[Tensor]]:
    """The loss of rows and the towers' gradients, with each denominator."""
    found = {}
    for denominator in get_args(Denominator):
        towers = Towers()
        loss = towers.loss(rows, denominator)
        torch.autograd.backward(loss)
        found[denominator] = [loss.detach(), *(p.grad for p in towers.parameters() if p.grad is not None)]
    found["half"] = of_half(rows)
    return found


def of_half(rows: slice) -> list[Tensor]:
    """The gradients of a rank's bfloat16 embeddings, in their places among those of all; ranks' shares of the mean."""
    video, text, mask = bags(clips=12, size=64)
    found = []
    own = [each.detach()[rows].bfloat16().requires_grad_() for each in (video, text)]
    torch.autograd.backward(mil_nce(own[0], own[1], mask[rows]))
    for whole, share in zip((video, text), own, strict=True):
        assert share.grad is not None
        found.append(torch.zeros_like(whole))
        found[-1][rows] = share.grad.float()
    return found


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_give_the_gradients_of_one_process(ranks: int, tmp_path: Path) -> None:
    found = averaged("tests.train.test_mil_nce", tmp_path, ranks, rows=12)
    alone = figures(slice(0, 12))
    for denominator in get_args(Denominator):
        for ours, theirs in zip(found[denominator], alone[denominator], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    # Each is rounded to 8 bits once, at the end: not by each rank before they are added up.
    for ours, theirs in zip(found["half"], alone["half"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=1e-7)


if __name__ == "__main__":
    be_a_rank(figures)
