"""The loss on held-out clips, every so many steps: the same clips each time, cropped in the middle, not augmented."""

import torch

from train.data import Batches, open_reader, to_device
from train.distributed import mean_over_ranks, rank, world_size
from train.recipe import DataSettings, Recipe
from train.vocabulary import Vocabulary


def heldout_data(recipe: Recipe) -> DataSettings:
    """The data of a recipe as they are evaluated on."""
    clips = recipe.data.clips.model_copy(update={"crop": "center", "start": "center", "flip": False})
    # Of each export of a mix too, whatever it is trained on.
    mix = [mixed.model_copy(update={"split": None}) for mixed in recipe.data.mix]
    return recipe.data.model_copy(update={"split": recipe.evaluation.split, "mix": mix, "clips": clips})


class HeldOut:
    """Batches of the held-out split, as large as those of training: the loss of MIL-NCE depends on how large."""

    def __init__(self, recipe: Recipe, vocabulary: Vocabulary) -> None:
        """ConfigError or InputError where there is no such split, or not one batch in it."""
        data = heldout_data(recipe)
        reader = open_reader(data, seed=recipe.seed, rank=rank(), world_size=world_size())
        self._batches = Batches(reader, vocabulary, data)
        self._steps = min(recipe.evaluation.batches, self._batches.per_epoch)

    @torch.no_grad()
    def loss(self, engine: torch.nn.Module, fields: tuple[str, ...], device: torch.device) -> float:
        """The mean loss over batches and ranks; to be called by every rank."""
        engine.eval()
        losses = []
        for micro_batch in self._batches.from_step(0, self._steps):
            batch = to_device(micro_batch, device)
            losses.append(engine(*(batch[field] for field in fields)))
        engine.train()
        return mean_over_ranks(torch.stack(losses).float().mean())
