"""The kinds of models whose features are computed.

Nothing is unpickled: weights of torch are read with weights_only, those of transformers are safetensors.
"""

from train.features.frozen import FrozenModel
from train.features.images import Onnx, Transformers
from train.features.settings import Kind, StreamSettings
from train.features.tower import S3D

_KINDS: dict[Kind, type[FrozenModel]] = {"s3d": S3D, "transformers": Transformers, "onnx": Onnx}


def find_model(settings: StreamSettings, *, offline: bool) -> FrozenModel:
    """The model of a stream. ModelNotFound, InputError or ConfigError, each with the fix."""
    return _KINDS[settings.kind](settings, offline=offline)
