"""The engine's step against plain torch: accumulation, clipping once, the schedule, ZeRO 0 to 3, on two gloo ranks."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from train.activations import checkpoint_activations
from train.models.s3dg import S3DG
from train.recipe import Recipe, load_recipe
from train.schedule import rate_factor

RANKS, MICRO_BATCHES, STEPS, CLIP, TOTAL = 2, 3, 4, 0.05, 6


class Task(nn.Module):
    """Loss of a clip: how far a small network's output is from the sum of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first, self.second = nn.Linear(12, 7), nn.Linear(7, 1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, frames: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        found = self.second(torch.tanh(self.first(frames.flatten(1)))).squeeze(1)
        loss: Tensor = ((found - tokens.sum(dim=(1, 2))) ** 2).mean()
        return loss


def micro_batch(step: int, number: int, rank: int) -> dict[str, Tensor | list[str]]:
    generator = torch.Generator().manual_seed((step * 10 + number) * 10 + rank)
    return {
        "frames": torch.randint(0, 256, (4, 1, 2, 2, 3), dtype=torch.uint8, generator=generator),
        "tokens": torch.randint(0, 4, (4, 1, 2), generator=generator),
        "mask": torch.ones(4, 1, dtype=torch.bool),
        "keys": [f"{step}-{number}-{rank}-{clip}" for clip in range(4)],
    }


def small(stage: int, precision: str = "fp32") -> Recipe:
    return load_recipe(
        "mil_nce_demo",
        [
            *("data.root=/none", "output.folder=/none", f"engine.zero_stage={stage}", f"data.batch={24}"),
            *(f"data.accumulate={MICRO_BATCHES}", f"optimiser.clip_gradient={CLIP}", f"engine.precision={precision}"),
            *("schedule={steps: 6, warmup_steps: 2, name: linear}", "data.augment={colour: 0, grey: 0}"),
        ],
    )


def losses_of_one_rank(folder: str, rank: int) -> None:
    from train.engine import Run, initialize, start_rank, take_step

    torch.set_num_threads(1)
    device = start_rank(small(0))
    for stage, precision in ((0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (0, "fp16")):
        recipe, task = small(stage, precision), Task()
        engine = initialize(recipe, task, total=TOTAL, per_epoch=TOTAL)
        run = Run(recipe, engine, None, None, device, TOTAL)  # type: ignore[arg-type]  # a step needs no more of it
        found = []
        for step in range(STEPS):
            batches = iter([micro_batch(step, number, rank) for number in range(MICRO_BATCHES)])
            rate = engine.get_lr()[0]
            taken = take_step(run, batches, step)
            found.append((torch.stack(taken.losses).mean().item(), taken.norm, rate))
        torch.save(found, f"{folder}/{stage}-{precision}-{rank}.pt")


def plain() -> list[tuple[float, float, float]]:
    """Loss, gradient norm and rate of each step, by one process and torch alone."""
    task = Task()
    optimiser = torch.optim.Adam(task.parameters(), lr=1e-3)
    found = []
    for step in range(STEPS):
        rate = 1e-3 * rate_factor(step, warmup=2, total=TOTAL, name="linear")
        optimiser.param_groups[0]["lr"] = rate
        batches = [micro_batch(step, number, rank) for number in range(MICRO_BATCHES) for rank in range(RANKS)]
        frames, tokens, mask = (torch.cat([batch[name] for batch in batches]) for name in ("frames", "tokens", "mask"))  # type: ignore[misc]  # tensors
        loss = task(frames.permute(0, 4, 1, 2, 3) / 255, tokens, mask)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(task.parameters(), CLIP).item()
        assert norm > 2 * CLIP
        optimiser.step()
        found.append((loss.item(), norm, rate))
    return found


def test_steps_are_those_of_plain_torch_with_any_stage_of_zero(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        **{"WORLD_SIZE": str(RANKS), "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())},
        **{"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
    }
    running = [
        subprocess.Popen([sys.executable, __file__, str(tmp_path)], env={**environment, "RANK": str(rank)})
        for rank in range(RANKS)
    ]
    assert [process.wait(timeout=200) for process in running] == [0] * RANKS
    expected = plain()
    for name in ("0-fp32", "1-fp32", "2-fp32", "3-fp32", "0-fp16"):
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(RANKS)]
        for step, (loss, norm, rate) in enumerate(expected):
            rel = 2e-2 if name.endswith("fp16") else 1e-5
            assert sum(of_rank[step][0] for of_rank in ranks) / RANKS == pytest.approx(loss, rel=rel), (name, step)
            assert ranks[0][step][2] == pytest.approx(rate)
            for of_rank in ranks:
                assert of_rank[step][1] == (None if name.endswith("fp16") else pytest.approx(norm, rel=1e-4)), name


def free_port() -> int:
    from train.launch import free_port as found

    return found()


def test_checkpointed_activations_change_nothing_but_memory() -> None:
    kept = S3DG(width=0.125, embedding=16)
    dropped = copy.deepcopy(kept)
    assert checkpoint_activations(dropped) == 12
    assert dropped.state_dict().keys() == kept.state_dict().keys()
    frames = torch.rand(2, 3, 4, 32, 32)
    sizes = []
    for model in (kept, dropped):
        held: dict[int, int] = {}

        def hold(tensor: Tensor, held: dict[int, int] = held) -> Tensor:
            held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = model(frames)["embedding"].square().sum()
        sizes.append(sum(held.values()))
        torch.autograd.backward(loss)
    for weight, other in zip(kept.parameters(), dropped.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=0, atol=0)
    for (name, one), same in zip(kept.named_buffers(), dropped.buffers(), strict=True):
        torch.testing.assert_close(one, same, rtol=0, atol=0, msg=name)  # a batch is counted once
    assert sizes[1] < 0.6 * sizes[0]


if __name__ == "__main__":
    losses_of_one_rank(sys.argv[1], int(os.environ["RANK"]))
