import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.objectives.mil_nce import MILNCE, Form, MILNCESettings

RANKS = 3


def objective(form: Form = "paper") -> MILNCE:
    return MILNCE(MILNCESettings(form=form))


def bags(clips: int = 6, candidates: int = 3, size: int = 8, missing: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(clips)
    video = torch.randn(clips, size, generator=generator, requires_grad=True)
    text = torch.randn(clips, candidates, size, generator=generator, requires_grad=True)
    mask = torch.rand(clips, candidates, generator=generator) >= missing
    mask[:, 0] = True
    return video, text, mask


def brute_force(video: Tensor, text: Tensor, mask: Tensor, form: Form) -> float:
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
        held = positives if form == "paper" else 2 * positives
        losses.append(math.log(held + negatives) - math.log(positives))
    return sum(losses) / clips


@pytest.mark.parametrize("form", ["paper", "release"])
def test_equals_the_formula_term_by_term(form: Form) -> None:
    video, text, mask = bags()
    assert objective(form)(video, text, mask).item() == pytest.approx(brute_force(video, text, mask, form), rel=1e-5)


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


@pytest.mark.parametrize("form", ["paper", "release"])
def test_a_clip_without_any_candidate_is_only_a_negative(form: Form) -> None:
    video, text, mask = bags()
    mask[2] = False
    loss = objective(form)(video, text, mask)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    assert video.grad is not None
    assert video.grad.isfinite().all()
    assert video.grad[2].ne(0).any()
    assert text.grad is not None
    assert text.grad.isfinite().all()


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

    def loss(self, rows: slice, form: Form) -> Tensor:
        video, text, mask = bags(clips=12)
        found: Tensor = objective(form)(self.video(video[rows]), self.text(text[rows]), mask[rows])
        return found


def gradient_of_one_rank(folder: str, form: Form, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    towers, share = Towers(), 12 // RANKS
    loss = towers.loss(slice(rank * share, (rank + 1) * share), form)
    torch.autograd.backward(loss)
    figures = [loss.detach()] + [p.grad for p in towers.parameters() if p.grad is not None]
    for figure in figures:  # averaged over ranks, as DeepSpeed and DDP do
        dist.all_reduce(figure)
        figure /= RANKS
    if rank == 0:
        torch.save(figures, f"{folder}/figures.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("form", ["paper", "release"])
def test_three_ranks_give_the_gradient_of_one_process(form: Form, tmp_path: Path) -> None:
    arguments = [sys.executable, __file__, str(tmp_path), form]
    ranks = [subprocess.Popen([*arguments, str(rank)]) for rank in range(RANKS)]
    assert [process.wait(timeout=120) for process in ranks] == [0] * RANKS
    towers = Towers()
    loss = towers.loss(slice(0, 12), form)
    torch.autograd.backward(loss)
    figures = torch.load(tmp_path / "figures.pt", weights_only=True)
    torch.testing.assert_close(figures[0], loss.detach())
    for found, parameter in zip(figures[1:], towers.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


if __name__ == "__main__":
    gradient_of_one_rank(sys.argv[1], "paper" if sys.argv[2] == "paper" else "release", int(sys.argv[3]))
