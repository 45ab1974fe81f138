"""Checkpoints of a run: whole or not there.

    FOLDER/step-00000120/   state-R.pt and rank-R.pt of each rank R, run.pt, ema.pt, the model for others
    FOLDER/latest.json      {"step": 120, "reader": ...}: the pointer, moved into place when all else is on disk

state-R.pt  weights and optimiser's state of some of the parameters, all ranks' together of all (train/state.py)
rank-R.pt   what the rank has of its own: random state, buffers (batch norm's statistics of the clips that it saw)
run.pt      what is the same on all ranks: their number, the schedule, the scale of the loss

If a process dies while a checkpoint is being written, the pointer still names the one before; the half-written folder
is removed by the next save. Files are read with torch's weights_only unpickler: a run's folder from somebody else can
hold wrong numbers, but no code.
"""

import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sayso.errors import InputError
from train.distributed import keeps_folder, own_folders, rank, world_size
from train.ema import Average
from train.run import POINTER, Latest, point_to, step_folder, sync
from train.run import latest as latest_of
from train.state import Part, own_part, set_parts, whole
from train.weights import Trained, save_model, save_tensors

STATE, OWN, RUN = "state-{}.pt", "rank-{}.pt", "run.pt"
_FOLDER = re.compile(r"step-\d{8,}")


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
    target.mkdir(parents=True, exist_ok=True)
    save_state(engine, target)
    if rank() == 0 and average:
        average.save(target)
    with average.in_place_of_weights() if average else nullcontext():
        weights = whole_weights(engine, trained.model)
    if rank() == 0:
        save_model(target, trained, weights)
    dist.barrier()
    if keeps_folder():
        for path in (*target.iterdir(), target):
            sync(path)
        before = latest.step
        if not own_folders():  # then no folder has all of it, and the mirror's pointer is the one that counts
            before = latest_of(folder).step
            point_to(folder, latest)
        remove_others(folder, latest.step, before=before, keep=keep)
    dist.barrier()


def save_state(engine: deepspeed.DeepSpeedEngine, target: Path) -> None:
    """Write all that the next step depends on into a folder; to be called by every rank."""
    save_tensors(own_part(engine), target / STATE.format(rank()))
    save_tensors(_own_state(engine.module), target / OWN.format(rank()))
    if rank() == 0:
        save_tensors(_run_state(engine), target / RUN)


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path, step: int, average: Average | None = None) -> None:
    """Bring model, optimiser, schedule, average and random state back to the checkpoint of `step`.

    The number of ranks and the stage of ZeRO may be others than those that wrote it.
    """
    source = step_folder(folder, step)
    if not source.is_dir():
        raise InputError(
            f"{folder / POINTER} names {source.name}, which is not there; remove the pointer to start anew"
        )
    try:
        restore_state(engine, source)
        if average:
            average.load(source)
    except (RuntimeError, ValueError, KeyError, EOFError, FileNotFoundError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{source} does not fit this recipe or is damaged ({first})") from error


def restore_state(engine: deepspeed.DeepSpeedEngine, source: Path) -> None:
    """Bring an engine that has not taken a step yet to what `save_state` wrote; to be called by every rank."""
    run = _load(source / RUN)
    set_parts(engine, _parts(source, run["ranks"]))
    _set_run_state(run, engine)
    _set_own_state(_load(source / OWN.format(rank() % run["ranks"])), engine.module, own=rank() < run["ranks"])


def whole_weights(engine: deepspeed.DeepSpeedEngine, model: nn.Module) -> dict[str, Tensor]:
    """On rank 0's CPU the state dict of the engine's model or a part of it; to be called by every rank."""
    weights: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        with whole(engine, parameter):
            if rank() == 0:
                weights[name] = parameter.detach().to("cpu", copy=True)
    if rank():
        return {}
    return {name: weights[name] if name in weights else value.cpu() for name, value in model.state_dict().items()}


def _parts(source: Path, ranks: int) -> Iterator[Part]:
    for other in range(ranks):
        # Mapped: of what other ranks hold, only what this one needs is read.
        yield _load(source / STATE.format(other), mmap=True)


def _load(path: Path, *, mmap: bool = False) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _run_state(engine: deepspeed.DeepSpeedEngine) -> dict[str, Any]:
    scaler = engine.torch_autocast_z0_gradscaler
    return {
        "ranks": world_size(),
        "steps": engine.global_steps,
        "schedule": engine.lr_scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else {},
    }


def _set_run_state(state: dict[str, Any], engine: deepspeed.DeepSpeedEngine) -> None:
    engine.global_steps = state["steps"]
    schedule = engine.lr_scheduler
    schedule.load_state_dict(state["schedule"])
    # The rate of the next step is the schedule's of now, which may be another than the one the run was begun with.
    rates = [
        rate * factor(schedule.last_epoch) for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(engine.basic_optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    if state["scaler"] and engine.torch_autocast_z0_gradscaler is not None:
        engine.torch_autocast_z0_gradscaler.load_state_dict(state["scaler"])


def _own_state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state(), "buffers": dict(model.named_buffers())}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_own_state(state: dict[str, Any], model: nn.Module, *, own: bool) -> None:
    """Take another rank's buffers where there was no rank of this number yet, but not its random state."""
    for name, buffer in model.named_buffers():
        buffer.copy_(state["buffers"][name])
    if own:
        torch.set_rng_state(state["cpu"])
    if own and "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def remove_others(folder: Path, step: int, *, before: int, keep: int) -> None:
    """Keep the newest `keep` checkpoints up to `step`; `before` is the one that was the newest until now.

    What lies beyond `step` was given up, and what lies between the two was never whole.
    """
    found = sorted(path for path in folder.iterdir() if _FOLDER.fullmatch(path.name))
    last, newest = step_folder(folder, before), step_folder(folder, step)
    whole = [path for path in found if path <= last or path == newest]
    for path in set(found) - set([path for path in whole if path <= newest][-keep:]):
        shutil.rmtree(path)
