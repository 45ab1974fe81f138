"""Activation checkpointing: keep the inputs of a model's blocks, compute what lies between them again in backward.

Memory falls from all activations to one block's and the inputs of the others, for about a third more compute. A model
says what its blocks are with a method `blocks()`; models without one are left as they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@runtime_checkable
class HasBlocks(Protocol):
    """A model whose activations can be dropped block by block."""

    def blocks(self) -> Iterable[nn.Module]:
        """The blocks; none lies within another."""


def checkpoint_activations(model: nn.Module) -> int:
    """Checkpoint every block found in `model`; returns how many there are. State names stay as they are."""
    blocks = [block for part in model.modules() if isinstance(part, HasBlocks) for block in part.blocks()]
    for block in blocks:
        _checkpoint(block)
    return len(blocks)


def _checkpoint(block: nn.Module) -> None:
    forward = block.forward
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]

    def again(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(
            forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(norms))
        )

    block.forward = again  # a wrapper module would change the names of the state


@contextmanager
def _statistics_kept(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Without this the second forward would count a batch twice in the running statistics."""
    kept = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: value.clone() for name, value in norm._buffers.items() if value is not None})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
