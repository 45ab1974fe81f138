"""S3D-G's mixed_5c, the mean over time and space before the joint embedding: of a file of weights as they were released
with MIL-NCE, with either stem, or of a folder of `sayso train`.
"""

from pathlib import Path

import torch
from torch import Tensor

from sayso.errors import ConfigError, InputError, ModelNotFound
from sayso.storage import hash_file
from shards.crop import Crop
from train.data import frames_to_device
from train.features.frozen import FrozenModel, Look
from train.features.windows import Sight
from train.imported import SIZE, WINDOWS, read_howto100m
from train.models.s3dg import S3DG, load_howto100m
from train.run import latest_model
from train.weights import CARD, WEIGHTS, load_model

_FRAMES, _FPS = WINDOWS["space_to_depth"]
_RELEASED = Sight(Crop(size=SIZE, short_side=SIZE), frames=_FRAMES, frame_fps=_FPS)


class S3D(FrozenModel):
    """A window of frames at a time."""

    def _find(self) -> tuple[Sight, str]:
        path = Path(self.wanted).expanduser()
        sight = _RELEASED
        if path.is_dir():
            path = latest_model(path)
            clips = load_model(path).card.clips
            sight = Sight(Crop(size=clips.size, short_side=clips.scaled_short_side), clips.frames, clips.fps)
            path = path / WEIGHTS
        if not path.is_file():
            raise ModelNotFound(
                f"stream {self.settings.name}: no {self.wanted}; "
                "give a file of S3D weights (HowTo100M), or a run's folder"
            )
        self.path = path.resolve()
        sight = self._as_asked(sight)
        return sight, f"s3d {hash_file(path)[0][:16]}, {sight}"

    def _as_asked(self, sight: Sight) -> Sight:
        own, crop = self.settings, self._crop(sight.crop.size, sight.crop.short_side)
        return Sight(crop, own.frames or sight.frames, own.frame_fps or sight.frame_fps)

    def load(self, device: torch.device) -> Look:
        """The tower, without text and joint embedding. ConfigError where its stem cannot take such windows."""
        has_card = (self.path.parent / CARD).is_file() and self.path.name == WEIGHTS
        tower = (_trained(self.path.parent) if has_card else _released(self.path)).eval().to(device)
        frames, size = self.sight.frames, self.sight.crop.size
        if tower.stem == "space_to_depth" and (frames % 2 or size % 2):
            raise ConfigError(
                f"stream {self.settings.name}: {self.wanted} looks at blocks of two, so frames and size must be even, "
                f"and are {frames} and {size}"
            )

        def look(windows: Tensor) -> Tensor:
            found: Tensor = tower(frames_to_device(windows, device))["mixed_5c"]
            return found.float().cpu()

        return look


def _trained(folder: Path) -> S3DG:
    tower = getattr(load_model(folder).model, "video", None)
    if not isinstance(tower, S3DG):
        raise InputError(f"{folder}: has no S3D-G, it was trained on features itself")
    return tower


def _released(path: Path) -> S3DG:
    state, stem = read_howto100m(path)
    model = S3DG(stem)
    try:
        load_howto100m(model, state)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return model
