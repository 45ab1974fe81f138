"""An exponential moving average of the weights, taken after every step: what is saved and evaluated in their place.

    average <- decay * average + (1 - decay) * weight

Batch norm's running statistics are averages already and stay the model's own. Every rank holds the same average; with
ZeRO 3 no rank has all weights, and the recipe refuses the two together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from sayso.errors import InputError
from train.weights import save_tensors

FILE = "ema.pt"


class Average:
    """The averages of a model's trained weights. Made before the first step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._averages = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of a step in."""
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.lerp_(weight, 1 - self._decay)

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Within it the model has the averages for weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, weight in zip(self._averages, self._weights, strict=True):
            was = weight.clone()
            weight.copy_(average)
            average.copy_(was)

    def save(self, folder: Path) -> None:
        """Write the averages beside a checkpoint's other files."""
        save_tensors(self._averages, folder / FILE)

    def load(self, folder: Path) -> None:
        """Go on with the averages of a checkpoint; InputError where it has none."""
        path = folder / FILE
        if not path.exists():
            raise InputError(f"{folder} was written without optimiser.ema; set it to null, or begin another run")
        saved: list[Tensor] = torch.load(path, weights_only=True, map_location="cpu")
        for average, value in zip(self._averages, saved, strict=True):
            average.copy_(value)
