"""The engine's step against plain torch: accumulation, clipping once, the schedule, ZeRO 0 to 3, on two gloo ranks."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sayso.errors import InputError
from train.activations import checkpoint_activations
from train.ema import Average
from train.models.s3dg import S3DG
from train.recipe import Recipe, load_recipe
from train.schedule import rate_factor
from train.speed import forward_flops, skeleton

RANKS, MICRO_BATCHES, STEPS, CLIP, TOTAL = 2, 3, 4, 0.05, 6


class Task(nn.Module):
    """Loss of a clip: how far a small network's output is from the sum of its tokens."""

    fields = ("frames", "tokens", "mask")

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first, self.second = nn.Linear(12, 7), nn.Linear(7, 1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def blocks(self) -> list[nn.Module]:
        return [self.first, self.second]

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
    import train.engine as engine_of
    from train.checkpoint import whole_weights
    from train.engine import Run, deepspeed_config, initialize, start_rank, take_step
    from train.worker import end

    def config(recipe: Recipe) -> dict[str, Any]:
        found = deepspeed_config(recipe)
        # Weights as small as these would stay on all ranks.
        return found | {"zero_optimization": found["zero_optimization"] | {"stage3_param_persistence_threshold": 0}}

    engine_of.deepspeed_config = config
    torch.set_num_threads(1)
    device = start_rank(small(0))
    for stage, precision in (*itertools.product(range(4), ("fp32", "bf16")), (0, "fp16")):
        recipe, task = small(stage, precision), Task()
        if stage == 3:
            checkpoint_activations(task)
        engine = initialize(recipe, task, total=TOTAL, per_epoch=TOTAL)
        run = Run(recipe, engine, None, task, device, TOTAL, None)  # type: ignore[arg-type]  # a step needs no more
        found = []
        for step in range(STEPS):
            batches = iter([micro_batch(step, number, rank) for number in range(MICRO_BATCHES)])
            rate = engine.get_lr()[0]
            taken = take_step(run, batches, step)
            assert (taken.scale is None) == (precision != "fp16")
            found.append((torch.stack(taken.losses).mean().item(), taken.norm, rate))
        torch.save((found, whole_weights(engine, task)), f"{folder}/{stage}-{precision}-{rank}.pt")
    dist.destroy_process_group()
    end(0)


def plain() -> tuple[list[tuple[float, float, float]], dict[str, Tensor]]:
    """Loss, gradient norm and rate of each step, and the weights then, by one process and torch alone."""
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
    return found, task.state_dict()


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
    expected, expected_weights = plain()
    for name in ("0-fp32", "1-fp32", "2-fp32", "3-fp32", "0-fp16"):
        loaded = [torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(RANKS)]
        half = name.endswith("fp16")  # leaves steps out until its scale fits, and its gradients have few digits
        for step, (loss, norm, rate) in enumerate(expected):
            of_ranks = [found[step] for found, _ in loaded]
            found_loss = sum(found for found, _, _ in of_ranks) / RANKS
            assert found_loss == pytest.approx(loss, rel=2e-2 if half else 1e-5), (name, step)
            for _, found_norm, found_rate in of_ranks:
                assert found_norm == (None if half else pytest.approx(norm, rel=1e-4)), name
                assert found_rate == pytest.approx(rate)
        _, weights = loaded[0]
        assert weights.keys() == expected_weights.keys()
        for key, weight in weights.items():
            torch.testing.assert_close(weight, expected_weights[key], rtol=1e-4, atol=1e-2 if half else 1e-5)

    in_half = {stage: torch.load(tmp_path / f"{stage}-bf16-0.pt", weights_only=True) for stage in range(4)}
    for stage, (steps, weights) in in_half.items():
        for key, weight in weights.items():  # also what ranks send each other is not rounded
            assert weight.dtype == torch.float32, (stage, key)
            torch.testing.assert_close(weight, in_half[0][1][key], rtol=1e-5, atol=1e-6, msg=f"{stage} {key}")
        assert [norm for _, norm, _ in steps] == pytest.approx([norm for _, norm, _ in in_half[0][0]], rel=1e-5), stage


def free_port() -> int:
    from train.node import free_port as found

    return found()


def test_flops_are_those_of_the_towers_products() -> None:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.objective = nn.Linear(30, 20, bias=False), nn.Bilinear(20, 20, 1)

        def forward(self, x: Tensor) -> Tensor:
            embedding = self.tower(x)
            loss: Tensor = self.objective(embedding, embedding).sum()
            return loss

    task = Bilinear()
    assert forward_flops(skeleton(task), [torch.ones(10, 30)]) == 2 * 10 * 30 * 20
    assert isinstance(task.objective, nn.Bilinear)  # the task itself is left as it is


def test_flops_of_the_published_network_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = S3DG(stem="space_to_depth")
    frames = torch.empty(1, 3, 32, 224, 224, device="meta")
    assert forward_flops(skeleton(network), [frames]) / 2e9 == pytest.approx(37.1, abs=0.1)


def test_an_average_of_weights_follows_them_and_survives(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    expected = model.weight.detach().clone()
    average = Average(model, decay=0.8)
    for step in range(1, 5):
        with torch.no_grad():
            model.weight.add_(step)
        average.update()
        expected = 0.8 * expected + 0.2 * model.weight.detach()
    last = model.weight.detach().clone()
    with average.in_place_of_weights():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight.detach(), last)
    average.save(tmp_path)
    fresh = Average(model, decay=0.8)
    fresh.load(tmp_path)
    with fresh.in_place_of_weights():
        torch.testing.assert_close(model.weight.detach(), expected)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"was written without optimiser\.ema"):
        fresh.load(tmp_path / "none")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports what torch calls deprecated
def test_compiled_towers_give_what_they_gave() -> None:
    from train.engine import compile_towers

    towers = nn.ModuleDict({"text": nn.Sequential(nn.Linear(6, 5), nn.ReLU())})
    plain_towers = copy.deepcopy(towers)
    compile_towers(towers)
    assert towers.state_dict().keys() == plain_towers.state_dict().keys()
    given = torch.randn(4, 6)
    torch.testing.assert_close(towers["text"](given), plain_towers["text"](given))
    assert towers["text"]._compiled_call_impl is not None


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
