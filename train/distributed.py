"""What a rank has to know of the others: who it is, and a gather that gradients flow through."""

import os

import torch
import torch.distributed as dist
from torch import Tensor

WATCH_STDIN = "SAYSO_END_WITH_STDIN"  # set for ranks that end when their standard input is closed
OWN_FOLDERS = "SAYSO_OWN_FOLDERS"  # set for ranks whose machines each have a folder of their own for the run
RESUME = 75  # a rank's exit code after a checkpoint that it was asked for: the run is to go on, here or elsewhere
GAVE_UP = 70  # a rank's exit code after what another start would meet again, such as a loss that is not a number


def world_size() -> int:
    """Number of ranks; 1 where no process group is there."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 where no process group is there."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    """Forward: concatenate every rank's tensor. Backward: sum the ranks' gradients of this rank's part."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        parts = grads[0].contiguous().chunk(dist.get_world_size())
        total = torch.empty_like(parts[0])
        dist.reduce_scatter(total, list(parts))
        return total


def gather(local: Tensor) -> Tensor:
    """(B, ...) on each rank -> (W * B, ...) in rank order on all of them; every rank must bring the same shape.

    The gradient of a rank's part is the sum over the ranks' losses. With losses that are means over the local rows and
    parameter gradients averaged over ranks, as DeepSpeed and DDP average them, W ranks give one process's gradient.
    """
    if world_size() == 1:
        return local
    gathered: Tensor = _Gather.apply(local)  # type: ignore[no-untyped-call]  # torch leaves apply() untyped
    return gathered


def mean_over_ranks(value: Tensor) -> float:
    """The mean of a scalar over all ranks."""
    total = value.detach().float().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total.item() / world_size()


def own_folders() -> bool:
    """Whether each machine has a folder of its own for the run, so that only the mirror has all of a checkpoint."""
    return os.environ.get(OWN_FOLDERS) == "1"


def keeps_folder() -> bool:
    """Whether this rank looks after the run's folder: one among the ranks that see the same one."""
    return os.environ.get("LOCAL_RANK", "0") == "0" if own_folders() else rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()
