from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.ranks import averaged, be_a_rank
from train.objectives.ranking import Ranking, RankingSettings, ranking

VIDEOS = torch.tensor([7, 7, 7, -2, -2, 5, 9, 9, 9, 9, 1, 7])


def pairs(number: int, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    video, text = (torch.randn(number, size, generator=generator, dtype=torch.float64) * 0.3 for _ in range(2))
    return video.requires_grad_(), text.requires_grad_()


def naive(
    video: Tensor, text: Tensor, videos: list[int], margin: float, share: float | None, there: list[bool]
) -> Tensor:
    """The formula term by term, differentiated by torch."""
    kept = [i for i in range(len(videos)) if there[i]]
    total = (video + text).sum() * 0
    for i in kept:
        near = sum(videos[j] == videos[i] for j in kept)
        others = len(kept) - near
        for j in kept:
            weight = 1.0
            if share is not None and near > 1 and others > 0:
                in_all = share / near if videos[j] == videos[i] else (1 - share) / others
                weight = in_all * len(kept)
            ahead = margin - video[i] @ text[i]
            total = total + weight * (ahead + video[i] @ text[j]).clamp(min=0)
            total = total + weight * (ahead + video[j] @ text[i]).clamp(min=0)
    return total / max(len(kept), 1) ** 2


@settings(max_examples=60, deadline=None)
@given(
    videos=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    margin=st.floats(0.01, 1),
    share=st.one_of(st.none(), st.floats(0.1, 0.9)),
    missing=st.integers(0, 2**9 - 1),
)
def test_value_and_gradients_are_those_of_the_formula_term_by_term(
    videos: list[int], margin: float, share: float | None, missing: int
) -> None:
    there = [not missing >> i & 1 for i in range(len(videos))]
    found: list[list[Tensor]] = []
    for ours in (True, False):
        video, text = pairs(len(videos))
        if ours:
            mask = torch.tensor(there)
            loss = ranking(video, text, torch.tensor(videos), margin, mask, same_video=share)
        else:
            loss = naive(video, text, videos, margin, share, there)
        torch.autograd.backward(3 * loss)
        assert video.grad is not None
        assert text.grad is not None
        found.append([loss.detach(), video.grad, text.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def release(scores: Tensor, videos: int, each: int, margin: float, hard: float) -> Tensor:
    """The loss of `videos` x `each` pairs as the authors' release weighs it: one number within, one across videos."""
    easy = 1 - hard
    alpha = easy / ((videos - 1) * hard)
    block = (1 - alpha) * torch.eye(videos, dtype=scores.dtype) + alpha
    weights = torch.kron(block, torch.ones(each, each, dtype=scores.dtype)) * (videos * hard)
    own = scores.diag()
    rows, columns = torch.relu(margin + scores - own[:, None]), torch.relu(margin + scores - own[None, :])
    return ((rows + columns) * weights).mean()


@pytest.mark.parametrize("hard", [0.5, 0.2])
def test_a_batch_of_equally_many_pairs_a_video_is_weighed_as_in_the_release(hard: float) -> None:
    video, text = pairs(12)
    numbers = torch.tensor([4, 8, 6]).repeat_interleave(4)
    expected = release(video @ text.T, videos=3, each=4, margin=0.1, hard=hard)
    torch.testing.assert_close(ranking(video, text, numbers, same_video=hard), expected, rtol=1e-12, atol=1e-12)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    mixed = ranking(video[shuffled], text[shuffled], numbers[shuffled], same_video=hard)
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-12)


def test_negatives_of_the_same_video_weigh_as_much_as_all_others() -> None:
    """Scores of 0 everywhere: each term is the margin, and what is left of the loss are the weights."""
    nothing, numbers = torch.zeros(8, 4), torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    assert ranking(nothing, nothing, numbers, margin=0.5).item() == pytest.approx(2 * 0.5)
    # Only the pairs of the larger video agree with each other: 6 anchors, half the weight of each, twice the margin.
    video = torch.zeros(8, 4)
    video[2:, 0] = 1
    loss = ranking(video, video, numbers, margin=0.5)
    near = 6 / 8 * 0.5 * 2 * 0.5  # of the larger video's anchors with each other; the others score 1 less
    assert loss.item() == pytest.approx(near + 2 / 8 * (0.5 * 2 * 0.5 + 0.5 * 2 * 0.5))


def test_without_a_pair_of_the_same_video_or_with_the_weighting_off_all_negatives_weigh_alike() -> None:
    video, text = pairs(6)
    scores = video @ text.T
    own = scores.diag()
    plain = (torch.relu(0.1 + scores - own[:, None]) + torch.relu(0.1 + scores - own)).mean()
    torch.testing.assert_close(ranking(video, text, torch.arange(6)), plain)
    torch.testing.assert_close(ranking(video, text, torch.zeros(6, dtype=torch.int64)), plain)
    numbers = torch.tensor([0, 0, 1, 1, 2, 3])
    torch.testing.assert_close(ranking(video, text, numbers, same_video=None), plain)
    assert not torch.isclose(ranking(video, text, numbers), plain)


def test_a_pair_that_leads_by_the_margin_costs_nothing_but_itself() -> None:
    video = torch.eye(4)
    loss = ranking(video, video, torch.arange(4), margin=0.2)
    assert loss.item() == pytest.approx(4 * 2 * 0.2 / 16)  # the anchor itself, a constant


def test_of_a_bag_the_anchor_is_taken_and_a_missing_one_left_out() -> None:
    video, text = pairs(6)
    numbers = torch.tensor([0, 0, 1, 1, 2, 2])
    bags = torch.stack([text, torch.full_like(text, 1e3)], dim=1)
    mask = torch.tensor([[True, False]] * 6)
    objective = Ranking(RankingSettings(normalised=False))
    torch.testing.assert_close(objective(video, bags, mask, numbers), ranking(video, text, numbers))
    mask[3, 0] = False
    left = torch.tensor([0, 1, 2, 4, 5])
    expected = ranking(video[left], text[left], numbers[left])
    torch.testing.assert_close(objective(video, bags, mask, numbers), expected)
    nothing = objective(video, bags, torch.zeros_like(mask), numbers)
    assert nothing.item() == 0
    torch.autograd.backward(nothing)
    assert video.grad is not None
    assert video.grad.eq(0).all()


def test_embeddings_are_compared_by_the_cosine_where_that_is_asked_for() -> None:
    video, text = pairs(6)
    numbers = torch.tensor([0, 0, 1, 1, 2, 2])
    unit_video, unit_text = (each / each.norm(dim=1, keepdim=True) for each in (video, text))
    mask = torch.ones(6, 1, dtype=torch.bool)
    found = Ranking(RankingSettings())(7 * video, text[:, None], mask, numbers)
    torch.testing.assert_close(found, ranking(unit_video, unit_text, numbers))


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_single(autocast: bool) -> None:
    video, text = (each.detach().bfloat16().requires_grad_() for each in pairs(12, size=64))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = ranking(video, text, VIDEOS, normalised=True)
    exact = ranking(video.detach().double(), text.detach().double(), VIDEOS, normalised=True)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)
    torch.autograd.backward(loss)
    assert video.grad is not None
    assert video.grad.dtype == torch.bfloat16
    assert video.grad.isfinite().all()


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.video, self.text = nn.Linear(6, 5), nn.Linear(6, 5)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def loss(self, rows: slice, normalised: bool) -> Tensor:
        video, text = (each.detach().float() for each in pairs(12))
        mask = torch.ones(12, 1, dtype=torch.bool)
        mask[4] = False  # ranks then have unequally many
        objective = Ranking(RankingSettings(normalised=normalised))
        found: Tensor = objective(self.video(video[rows]), self.text(text[rows])[:, None], mask[rows], VIDEOS[rows])
        return found


def figures(rows: slice) -> dict[str, list[Tensor]]:
    """The loss of rows and the towers' gradients, with and without normalising."""
    found = {}
    for normalised in (True, False):
        towers = Towers()
        loss = towers.loss(rows, normalised)
        torch.autograd.backward(loss)
        found[str(normalised)] = [loss.detach(), *(p.grad for p in towers.parameters() if p.grad is not None)]
    return found


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_give_the_gradients_of_one_process(ranks: int, tmp_path: Path) -> None:
    found = averaged("tests.train.test_ranking", tmp_path, ranks, rows=12)
    for normalised, alone in figures(slice(0, 12)).items():
        assert alone[0] > 0
        for ours, theirs in zip(found[normalised], alone, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


if __name__ == "__main__":
    be_a_rank(figures)
