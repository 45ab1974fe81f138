"""Checkpoints of a run: whole or not there.

    FOLDER/step-00000120/   DeepSpeed's files (model, optimiser, schedule), rng-R.pt of each rank, the model for others
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

from sayso.errors import InputError
from train.distributed import rank
from train.ema import Average
from train.run import POINTER, Latest, point_to, step_folder
from train.weights import Trained, save_model

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
    engine.save_checkpoint(str(folder), tag=target.name, save_latest=False)
    torch.save(_random_state(engine), target / f"rng-{rank()}.pt")
    if rank() == 0 and average:
        average.save(target)
    with whole_weights(engine), average.in_place_of_weights() if average else nullcontext():
        if rank() == 0:
            save_model(target, trained)
    dist.barrier()
    if rank() == 0:
        _sync(target)
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
    random_state = source / f"rng-{rank()}.pt"
    if random_state.exists():  # a run that goes on with more ranks has none for the new ones
        _set_random_state(torch.load(random_state, weights_only=True), engine)


@contextmanager
def whole_weights(engine: deepspeed.DeepSpeedEngine) -> Iterator[None]:
    """Within it every rank sees all weights, also those that ZeRO 3 shares out. To be entered by every rank."""
    shared_out = engine.zero_optimization_stage() == ZeroStageEnum.weights
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=shared_out):
        yield


def _random_state(engine: deepspeed.DeepSpeedEngine) -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if engine.torch_autocast_z0_gradscaler is not None:
        state["scaler"] = engine.torch_autocast_z0_gradscaler.state_dict()  # DeepSpeed forgets it
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any], engine: deepspeed.DeepSpeedEngine) -> None:
    if "scaler" in state and engine.torch_autocast_z0_gradscaler is not None:
        engine.torch_autocast_z0_gradscaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


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
