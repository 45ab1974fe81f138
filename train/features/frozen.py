"""What all models have in common whose features are computed."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sayso.errors import ConfigError
from shards.crop import Crop
from train.features.settings import StreamSettings
from train.features.windows import Sight

Look = Callable[[Tensor], Tensor]
"""What a loaded model makes of windows: uint8 (B, frames, size, size, 3) -> float32 (B, D), on the CPU."""


class FrozenModel(ABC):
    """A model that was found. Loading it is another step, for workers."""

    def __init__(self, settings: StreamSettings, *, offline: bool) -> None:
        """ModelNotFound or InputError where there is no such model. `settings` have one."""
        assert settings.model is not None
        self.settings, self.offline, self.wanted = settings, offline, settings.model
        self.sight, self.name = self._find()

    @abstractmethod
    def _find(self) -> tuple[Sight, str]:
        """What it sees, and what it is: features of two models with one name are the same."""

    def _crop(self, size: int, short_side: int) -> Crop:
        """What it is shown of a picture: as it has it, or as the settings say. ConfigError where that cannot be cut."""
        own = self.settings
        if own.size or own.short_side:
            size = own.size or size
            short_side = own.short_side or size
        if short_side < size:
            raise ConfigError(
                f"stream {own.name}: short_side {short_side} is below {size}, the size; raise it, or give size"
            )
        return Crop(size=size, short_side=short_side)

    @abstractmethod
    def load(self, device: torch.device) -> Look:
        """The model on a device. InputError where its weights cannot be used."""


def first_line(error: Exception) -> str:
    """The first line of what an error of another library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
