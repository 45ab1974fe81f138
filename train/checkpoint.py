"""Checkpoints of a run: whole or not there.

    FOLDER/step-00000120/   DeepSpeed's files (model, optimiser, schedule), rank-R.pt of each rank, the model for others
    FOLDER/latest.json      {"step": 120, "reader": ...}: the pointer, moved into place when all else is on disk

If a process dies while a checkpoint is being written, the pointer still names the one before; the half-written folder
is removed by the next save. Files are read with torch's weights_only unpickler: a run's folder from somebody else can
hold wrong numbers, but no code.
"""

import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sayso.errors import InputError
from train.distributed import keeps_folder, own_folders, rank
from train.ema import Average
from train.run import POINTER, Latest, point_to, step_folder
from train.weights import Trained, save_model

OWN_STATE = "rank-{}.pt"
# What ZeRO's files hold besides tensors and plain values: numbers in classes of DeepSpeed's own.
PLAIN = [LossScaler, ZeroStageEnum, fragment_address]


class WeightsOnlyCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]  # deepspeed has no types
    """DeepSpeed's own files, read without running code from them."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """The state in a file that DeepSpeed wrote."""
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location=map_location, weights_only=True)


def save(
    engine: deepspeed.DeepSpeedEngine,
    folder: Path,
    latest: Latest,
    trained: Trained,
    average: Average | None,
    *,
    keep: int,
) -> None:
    """Write the checkpoint that `latest` describes; to be called by every rank.

    The model for others has the average of the weights where there is one.
    """
    target = step_folder(folder, latest.step)
    target.mkdir(parents=True, exist_ok=True)  # DeepSpeed makes it on the first machine alone
    engine.save_checkpoint(str(folder), tag=target.name, save_latest=False)
    torch.save(_own_state(engine), target / OWN_STATE.format(rank()))
    if rank() == 0 and average:
        average.save(target)
    with whole_weights(engine), average.in_place_of_weights() if average else nullcontext():
        if rank() == 0:
            save_model(target, trained)
    dist.barrier()
    if keeps_folder():
        _sync(target)
        if not own_folders():  # then no folder has all of it, and the mirror's pointer is the one that counts
            point_to(folder, latest)
        _remove_others(folder, latest.step, keep)
    dist.barrier()


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path, step: int, average: Average | None = None) -> None:
    """Bring model, optimiser, schedule, average and random state back to the checkpoint of `step`."""
    source = step_folder(folder, step)
    try:
        loaded, _ = engine.load_checkpoint(str(folder), tag=source.name)
    except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{source} does not fit this recipe or is damaged ({first})") from error
    if loaded is None:
        raise InputError(
            f"{folder / POINTER} names {source.name}, which is not there; remove the pointer to start anew"
        )
    if average:
        average.load(source)
    own_state = source / OWN_STATE.format(rank())
    if own_state.exists():  # a run that goes on with more ranks has none for the new ones
        _set_own_state(torch.load(own_state, map_location="cpu", weights_only=True), engine)


@contextmanager
def whole_weights(engine: deepspeed.DeepSpeedEngine) -> Iterator[None]:
    """Within it every rank sees all weights, also those that ZeRO 3 shares out. To be entered by every rank."""
    shared_out = engine.zero_optimization_stage() == ZeroStageEnum.weights
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=shared_out):
        yield


def _own_state(engine: deepspeed.DeepSpeedEngine) -> dict[str, Any]:
    """What each rank has of its own: random state, the scale of its loss, statistics of the batches that it saw."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state(), "statistics": _statistics(engine.module)}
    if engine.torch_autocast_z0_gradscaler is not None:
        state["scaler"] = engine.torch_autocast_z0_gradscaler.state_dict()  # DeepSpeed forgets it
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_own_state(state: dict[str, Any], engine: deepspeed.DeepSpeedEngine) -> None:
    if "scaler" in state and engine.torch_autocast_z0_gradscaler is not None:
        engine.torch_autocast_z0_gradscaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["cpu"])
    for name, buffer in _statistics(engine.module).items():
        buffer.copy_(state["statistics"][name])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """The running statistics of batch norm: each rank sees other clips, and DeepSpeed saves the first rank's alone."""
    return {
        f"{place}.{name}": buffer
        for place, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
    }


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _remove_others(folder: Path, step: int, keep: int) -> None:
    """Keep the newest `keep` checkpoints up to `step`; what lies beyond it was given up."""
    whole = sorted(path for path in folder.glob("step-*") if path.name <= step_folder(folder, step).name)
    for path in set(folder.glob("step-*")) - set(whole[-keep:]):
        shutil.rmtree(path)
