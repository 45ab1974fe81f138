"""How fast a run is against what its device could do: samples a second, TFLOP/s, MFU, and the wait for data.

MFU (model FLOPs utilisation) = what forward and backward of the model need / what the device could have done in the
time. A step is counted as three forwards (backward needs twice a forward's products), as Chinchilla and PaLM count;
what activation checkpointing computes again does not count, and the objective is left out: it is the towers' share.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from train.guard import Taken
from train.recipe import Recipe

_SIDE = {"cpu": 768, "cuda": 8192}  # of the square matrices that a device's peak is measured with
_ROUNDS = 5
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Peak:
    """What one device can do at best, in TFLOP/s, and how that is known: "setting" or "matmul"."""

    tflops: float
    source: str


class _NoObjective(nn.Module):
    def forward(self, *embeddings: Tensor) -> Tensor:
        return embeddings[0].sum()


def skeleton(task: nn.Module) -> nn.Module:
    """The task without weights and without its objective, to count its FLOPs with: shapes are all that is left."""
    bare = copy.deepcopy(task).to("meta")
    if hasattr(bare, "objective"):
        bare.objective = _NoObjective()
    return bare


def forward_flops(bare: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Floating point operations of a forward of a skeleton on tensors like these."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        bare(*(torch.empty_like(tensor, device="meta") for tensor in inputs))
    return int(counter.get_total_flops())


def peak(recipe: Recipe, device: torch.device) -> Peak:
    """The device's best speed: engine.peak_tflops where it is given, else the best of some large matrix products."""
    if recipe.engine.peak_tflops is not None:
        return Peak(recipe.engine.peak_tflops, "setting")
    side = _SIDE[device.type]
    matrix = torch.ones(side, side, dtype=_DTYPES[recipe.engine.resolved_precision], device=device)
    return Peak(2 * side**3 / min(_product_seconds(matrix) for _ in range(_ROUNDS)) / 1e12, "matmul")


def _product_seconds(matrix: Tensor) -> float:
    if matrix.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    matrix @ matrix
    if matrix.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


@dataclass
class Speed:
    """Turns a step's times into figures. The FLOPs of a forward are counted when first asked for."""

    recipe: Recipe
    bare: nn.Module
    peak: Peak
    flops: int | None = None

    def figures(self, taken: Taken) -> dict[str, Any]:
        """samples_per_second over all ranks; data_wait as a share of the step; tflops and mfu of this rank."""
        if self.flops is None:
            self.flops = forward_flops(self.bare, taken.inputs)
        tflops = 3 * self.flops * len(taken.losses) / taken.seconds / 1e12
        return {
            "samples_per_second": self.recipe.data.batch / taken.seconds,
            "data_wait": taken.waited / taken.seconds,
            "tflops": tflops,
            "mfu": tflops / self.peak.tflops,
        }
