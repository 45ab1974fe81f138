"""MIL-NCE under DeepSpeed's ZeRO 0 to 3: gradients, and runs that go on with other ranks or another stage, on gloo.

One rank and, beside it, two ranks: with each stage they take some steps and write a checkpoint in the middle; when both
have, they go on from all of these checkpoints. What they should give is what one process and plain torch give.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.objectives.mil_nce import mil_nce
from train.recipe import Recipe, load_recipe
from train.schedule import rate_factor

CLIPS, CANDIDATES, STEPS, HALF = 12, 3, 4, 2
STAGES, RANKS = (0, 1, 2, 3), (1, 2)


class Towers(nn.Module):
    """Towers that treat each clip by itself: what batch norm makes of one depends on the others of its rank, so that
    ranks with it are not parts of one process. Here its statistics are taken, but nothing comes of it.

    A weight is not trained, and no number of elements can be shared out evenly.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.video, self.text = nn.Linear(9, 7), nn.Linear(8, 7)
        self.words = nn.Parameter(torch.empty(5, 8), requires_grad=False)
        self.seen = nn.BatchNorm1d(9, affine=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, video: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        self.seen(video)
        return mil_nce(self.video(video), self.text(self.words[words]), mask)


def batch(step: int, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    video = torch.randn(CLIPS, 9, generator=generator)
    words = torch.randint(0, 5, (CLIPS, CANDIDATES), generator=generator)
    mask = torch.rand(CLIPS, CANDIDATES, generator=generator) < 0.8
    mask[:, 0] = True
    return video[rows], words[rows], mask[rows]


def small(stage: int, ranks: int) -> Recipe:
    overrides = [
        *("data.root=/none", "output.folder=/none", f"engine.zero_stage={stage}", f"engine.ranks={ranks}"),
        *(f"data.batch={CLIPS}", "optimiser.lr=1e-2", "schedule={steps: 6, warmup_steps: 2, name: linear}"),
    ]
    return load_recipe("mil_nce_demo", overrides)


@dataclass
class Steps:
    """What some steps gave: each one's loss, the gradients of the first, and the weights after the last."""

    losses: list[float]
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


def plain() -> Steps:
    """One process with the whole batch and torch alone."""
    task = Towers()
    optimiser = torch.optim.Adam([weight for weight in task.parameters() if weight.requires_grad])
    losses, first = [], {}
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 1e-2 * rate_factor(step, warmup=2, total=6, name="linear")
        loss = task(*batch(step))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        if step == 0:
            first = {name: weight.grad.clone() for name, weight in task.named_parameters() if weight.grad is not None}
        optimiser.step()
        losses.append(loss.item())
    return Steps(losses, first, {name: weight.detach() for name, weight in task.named_parameters()})


def run_one_rank(folder: Path, ranks: int, rank: int) -> None:
    from deepspeed.utils import safe_get_full_grad

    import train.engine as engine_of
    from train.checkpoint import restore_state, save_state, whole_weights
    from train.engine import deepspeed_config, initialize, start_rank
    from train.worker import end

    def all_shared_out(recipe: Recipe) -> dict[str, Any]:
        # Weights as small as these would stay on all ranks with ZeRO 3.
        found = deepspeed_config(recipe)
        return found | {"zero_optimization": found["zero_optimization"] | {"stage3_param_persistence_threshold": 0}}

    engine_of.deepspeed_config = all_shared_out
    torch.set_num_threads(1)
    start_rank(small(0, ranks))
    share = CLIPS // ranks
    rows = slice(rank * share, (rank + 1) * share)

    def steps(stage: int, source: Path | None, target: Path | None, numbers: range) -> Steps:
        engine = initialize(small(stage, ranks), Towers(), total=6, per_epoch=6)
        if source:
            restore_state(engine, source)
        losses, gradients = [], {}
        for step in numbers:
            loss = engine(*batch(step, rows))
            engine.backward(loss)
            if step == 0:
                trained = [(n, weight) for n, weight in engine.module.named_parameters() if weight.requires_grad]
                gradients = {name: safe_get_full_grad(weight).clone() for name, weight in trained}
            engine.step()
            total = loss.detach().clone()
            dist.all_reduce(total)
            losses.append(total.item() / ranks)
            if target and step + 1 == HALF:
                save_state(engine, target)
        weights = whole_weights(engine, engine.module)
        return Steps(losses, gradients, weights | {"seen": engine.module.seen.running_mean.clone()})

    for stage in STAGES:
        written = folder / f"{stage}-{ranks}"
        written.mkdir(exist_ok=True)
        found = steps(stage, None, written, range(STEPS))
        torch.save(vars(found), folder / f"steps-{stage}-{ranks}-{rank}.pt")
    (folder / f"written-{ranks}-{rank}").touch()
    deadline = time.monotonic() + 120
    while len(list(folder.glob("written-*"))) < sum(RANKS):
        assert time.monotonic() < deadline, "the others did not write their checkpoints"
        time.sleep(0.05)
    for stage, other, others in itertools.product(STAGES, STAGES, RANKS):
        found = steps(stage, folder / f"{other}-{others}", None, range(HALF, STEPS))
        torch.save(vars(found), folder / f"on-{stage}-{ranks}-from-{other}-{others}-{rank}.pt")
    dist.destroy_process_group()
    end(0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from train.node import free_port

    folder = tmp_path_factory.mktemp("zero")
    running = []
    for ranks in RANKS:
        environment = {
            **os.environ,
            **{
                "WORLD_SIZE": str(ranks),
                "LOCAL_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(free_port()),
            },
            **{"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        }
        command = [sys.executable, __file__, str(folder), str(ranks)]
        running += [subprocess.Popen([*command, str(r)], env={**environment, "RANK": str(r)}) for r in range(ranks)]
    assert [process.wait(timeout=200) for process in running] == [0] * len(running)
    return folder


def read(path: Path) -> Steps:
    return Steps(**torch.load(path, weights_only=True))


@pytest.mark.parametrize("stage", STAGES)
def test_ranks_have_the_gradients_of_one_process(stage: int, runs: Path) -> None:
    expected = plain()
    for rank in range(2):
        found = read(runs / f"steps-{stage}-2-{rank}.pt")
        assert found.gradients.keys() == {"video.weight", "video.bias", "text.weight", "text.bias"}
        for name, gradient in found.gradients.items():
            torch.testing.assert_close(gradient, expected.gradients[name], rtol=1e-6, atol=1e-6)
        assert found.losses == pytest.approx(expected.losses, rel=1e-6)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on_from_any_stage_and_number_of_ranks(stage: int, ranks: int, runs: Path) -> None:
    expected = plain()
    unbroken = read(runs / f"steps-{stage}-{ranks}-0.pt")
    for other in STAGES:
        for others in RANKS:
            found = read(runs / f"on-{stage}-{ranks}-from-{other}-{others}-0.pt")
            assert found.losses == pytest.approx(expected.losses[HALF:], rel=1e-5), (other, others)
            for name, weight in expected.weights.items():
                torch.testing.assert_close(found.weights[name], weight, rtol=1e-5, atol=1e-5)
            if (other, others) == (stage, ranks):
                assert found.losses == unbroken.losses[HALF:]
                for name, weight in unbroken.weights.items():
                    assert torch.equal(found.weights[name], weight), name


def test_statistics_of_batch_norm_are_each_ranks_own_and_those_of_new_ranks_an_older_ones(runs: Path) -> None:
    def after(name: str, rank: int) -> Tensor:
        return read(runs / f"{name}-{rank}.pt").weights["seen"]

    own = [torch.load(runs / "2-2" / f"rank-{rank}.pt", weights_only=True)["buffers"] for rank in range(2)]
    assert not torch.equal(own[0]["seen.running_mean"], own[1]["seen.running_mean"])
    for rank in range(2):
        assert torch.equal(after("on-2-2-from-2-2", rank), after("steps-2-2", rank))
    of_one = torch.load(runs / "2-1" / "rank-0.pt", weights_only=True)["buffers"]["seen.running_mean"]
    for step in range(HALF, STEPS):
        of_one = 0.9 * of_one + 0.1 * batch(step, slice(6, 12))[0].mean(0)
    torch.testing.assert_close(after("on-2-2-from-2-1", 1), of_one)


if __name__ == "__main__":
    run_one_rank(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
