"""What backward needs of a rank's clips: the tensors that S3D-G keeps, in bfloat16, by the recipes with frames.

    python -m benchmarks.activations

One clip goes through the tower of each recipe on the CPU, and what autograd saves of it is counted, once without and
once with engine.checkpoint_activations, and taken times the clips of a rank's micro-batch. Not in it: weights and word
vectors, the optimiser's state, the frames themselves, what a block computes again, and the kernels' own space.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.activations import checkpoint_activations
from train.models.s3dg import S3DG
from train.models.video_text import VideoTextSettings
from train.recipe import load_recipe

RECIPES = "mil_nce_paper", "mil_nce_release_8gpu"
MIB = 1 << 20


def kept(tower: S3DG, clip: Tensor) -> int:
    """Bytes that are kept of a clip for backward, beside the tower's own weights."""
    held: dict[int, torch.UntypedStorage] = {}

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        tower(clip)
    weights = {parameter.untyped_storage().data_ptr() for parameter in tower.parameters()}
    return sum(storage.nbytes() for place, storage in held.items() if place not in weights)


def main() -> None:
    """Print two lines a recipe."""
    for name in RECIPES:
        recipe = load_recipe(name, ["data.root=none", "data.export=none", "output.folder=/none"])
        assert isinstance(recipe.model, VideoTextSettings)
        frames, size = recipe.data.clips.frames, recipe.data.clips.size
        clips = recipe.data.batch // (recipe.engine.world_size * recipe.data.accumulate)
        for checkpointed in (False, True):
            tower = S3DG(**recipe.model.video.model_dump())
            if checkpointed:
                checkpoint_activations(tower)
            each = kept(tower, torch.rand(1, 3, frames, size, size))
            print(
                f"{name}, engine.checkpoint_activations={str(checkpointed).lower()}: {each / MIB:.0f} MiB a clip of "
                f"{frames}x{size}x{size}, {clips * each / MIB / 1024:.1f} GiB for the {clips} clips of a rank"
            )


if __name__ == "__main__":
    main()
