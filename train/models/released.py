"""Weights that others released, under names that are the model's own by now."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sayso.errors import InputError


def copy_strictly(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, hint: str) -> None:
    """Copy `state` into the tensors of `wanted`: every one must be there in its shape, and nothing else.

    Raises InputError, with the hint, before anything is copied.
    """
    differing = sorted(
        [f"{name} is not there" for name in wanted.keys() - state.keys()]
        + [f"{name} is of no use" for name in state.keys() - wanted.keys()]
        + [
            f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in wanted.keys() & state.keys()
            if state[name].shape != wanted[name].shape
        ]
    )
    if differing:
        raise InputError(
            f"the weights are not this model's in {len(differing)} entries, the first: {differing[0]}; {hint}"
        )
    with torch.no_grad():
        for name, weight in state.items():
            wanted[name].copy_(weight)
