"""The state of an engine by the names of its parameters: any stage of ZeRO on any number of ranks can go on with it.

    engine --gathered, a parameter at a time--> own_part   of each rank the parameters that are its to keep
    parts --read where they lie--> set_parts               each rank takes what its own stage of ZeRO has it hold

DeepSpeed's own files are cut as the ranks were that wrote them, and fit no others. A parameter's values are `weight`
and what its optimiser holds: Adam's two moments and the steps it has taken. Weights are fp32 also where towers compute
in half precision (train/engine.py), so there is no second copy of them. At most one whole parameter is on a device at
a time, and of all of them each rank keeps its share in memory.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import deepspeed
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils import safe_get_full_optimizer_state, safe_set_full_optimizer_state, safe_set_local_optimizer_state
from torch import Tensor, nn

from train.distributed import rank, world_size

Part = dict[str, dict[str, Tensor]]
WEIGHT, STEP, MOMENTS = "weight", "step", ("exp_avg", "exp_avg_sq")


@contextmanager
def whole(engine: deepspeed.DeepSpeedEngine, parameter: nn.Parameter, *, writer: int | None = None) -> Iterator[None]:
    """Within it every rank sees all of a parameter, also where ZeRO 3 shares it out. To be entered by every rank.

    What rank `writer` makes of it there is what all ranks have afterwards.
    """
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=writer, enabled=_shares_weights(engine)):
        yield


def own_part(engine: deepspeed.DeepSpeedEngine) -> Part:
    """The whole values of the parameters that are this rank's to keep, on the CPU. To be called by every rank."""
    held = [0] * world_size()
    part: Part = {}
    for name, parameter in engine.module.named_parameters():
        owner = held.index(min(held))
        with whole(engine, parameter):
            held[owner] += parameter.numel()
            values = {WEIGHT: parameter.detach(), **_optimiser_state(engine, parameter)}
            if owner == rank():
                part[name] = {key: value.to("cpu", copy=True) for key, value in values.items()}
    return part


@torch.no_grad()
def set_parts(engine: deepspeed.DeepSpeedEngine, parts: Iterable[Part]) -> None:
    """Bring an engine that has not taken a step yet to the state in all ranks' parts. To be called by every rank.

    Raises ValueError where the parts are not of these parameters.
    """
    missing = dict(engine.module.named_parameters())
    if engine.zero_optimization():
        _make_room(engine)
    for part in parts:
        for name, values in part.items():
            if name not in missing:
                raise ValueError(f"it has a parameter {name}, which the model has not")
            parameter = missing.pop(name)
            with whole(engine, parameter, writer=0):
                if parameter.shape != values[WEIGHT].shape:
                    raise ValueError(f"{name} is {list(values[WEIGHT].shape)} and should be {list(parameter.shape)}")
                parameter.copy_(values[WEIGHT])
            _set_optimiser_state(engine, parameter, values)
    if missing:
        raise ValueError(f"it has no parameter {min(missing)}")
    if engine.zero_optimization():
        engine.optimizer.refresh_fp32_params()  # ZeRO steps on a copy of its part of the weights


def _shares_weights(engine: deepspeed.DeepSpeedEngine) -> bool:
    return bool(engine.zero_optimization_stage() == ZeroStageEnum.weights)


def _optimiser_state(engine: deepspeed.DeepSpeedEngine, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What the optimiser holds for a parameter; nothing where it does not train it, or has not taken a step yet."""
    states = engine.basic_optimizer.state
    if not engine.zero_optimization():
        return dict(states.get(parameter, {}))
    if not parameter.requires_grad or not states:
        return {}
    steps = next(iter(states.values()))[STEP]  # all parts are stepped together
    return {STEP: steps, **{key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}}


def _make_room(engine: deepspeed.DeepSpeedEngine) -> None:
    """Give the flat parts of the weights that ZeRO's ranks step on the state that their first step would give them."""
    optimiser, states = engine.optimizer, engine.basic_optimizer.state
    shared = _shares_weights(engine)
    for flat in optimiser.fp32_partitioned_groups_flat if shared else optimiser.single_partition_of_fp32_groups:
        states[flat] = {STEP: torch.zeros(()), **{key: torch.zeros_like(flat) for key in MOMENTS}}
    if not shared:
        optimiser._lazy_init_hp_params_optimizer_state()  # each parameter finds its piece of them by that


def _set_optimiser_state(engine: deepspeed.DeepSpeedEngine, parameter: nn.Parameter, values: dict[str, Tensor]) -> None:
    states = engine.basic_optimizer.state
    if STEP not in values:
        return
    if not engine.zero_optimization():
        moments = {key: torch.empty_like(parameter).copy_(values[key]) for key in MOMENTS}
        states[parameter] = {STEP: values[STEP].clone(), **moments}
        return
    for state in states.values():
        state[STEP].copy_(values[STEP])
    for key in MOMENTS:
        if _shares_weights(engine):
            held: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]  # DeepSpeed's, in the weight's place
            safe_set_local_optimizer_state(parameter, _piece(values[key], held.numel()).to(held.device), key)
        else:
            safe_set_full_optimizer_state(parameter, values[key], key)


def _piece(value: Tensor, size: int) -> Tensor:
    """This rank's piece of a parameter that is cut into pieces of a size, the last one filled up with zeros."""
    piece = value.flatten()[rank() * size : (rank() + 1) * size]
    return torch.nn.functional.pad(piece, (0, size - piece.numel()))
