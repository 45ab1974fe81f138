"""From the reader's clips to batches on the device.

The reader decides which clip comes when (shards/reader.py); here clips are decoded by loader workers, joined to batches
and counted. The position is counted in steps that were taken, not in clips that workers have fetched ahead.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sayso.errors import ConfigError
from shards.reader import Clip, ClipReader
from train.recipe import DataSettings
from train.vocabulary import Vocabulary

Batch = dict[str, Tensor]


def open_reader(settings: DataSettings, *, seed: int, rank: int = 0, world_size: int = 1) -> ClipReader:
    """The reader of a recipe's clips as one rank sees them."""
    return ClipReader(
        settings.url, split=settings.split, settings=settings.clips, seed=seed, rank=rank, world_size=world_size
    )


def steps_per_epoch(settings: DataSettings, reader: ClipReader, world_size: int) -> int:
    """Whole batches of an epoch, the same on every rank; ConfigError where there is not one."""
    steps = len(reader) * world_size // settings.batch
    if not steps:
        raise ConfigError(
            f"data.batch {settings.batch} is more than the {reader.samples} clips an epoch of {settings.url} has"
        )
    return steps


class Batches:
    """This rank's batches, from any step on."""

    def __init__(self, reader: ClipReader, vocabulary: Vocabulary, *, settings: DataSettings, world_size: int) -> None:
        self.reader, self.vocabulary = reader, vocabulary
        self.global_batch, self.workers = settings.batch, settings.workers
        self.local_batch = settings.batch // world_size
        self.per_epoch = steps_per_epoch(settings, reader, world_size)

    def from_step(self, step: int, last: int) -> Iterator[Batch]:
        """Batches of the steps [step, last), over as many epochs as they span."""
        while step < last:
            epoch, done = divmod(step, self.per_epoch)
            wanted = min(self.per_epoch - done, last - step)
            yield from self._of_epoch(epoch, done, wanted)
            step += wanted

    def _of_epoch(self, epoch: int, done: int, wanted: int) -> Iterator[Batch]:
        self.reader.set_epoch(epoch)
        self.reader.load_state_dict({"epoch": epoch, "position": done * self.global_batch})
        clips = iter(self._loader())
        for _ in range(wanted):
            yield collate([next(clips) for _ in range(self.local_batch)], self.vocabulary)

    def _loader(self) -> DataLoader[Clip]:
        # Single clips, not batches, come from the workers: in the order of the reader, whatever the number of workers.
        # A generator of its own keeps the loader's hands off the random state that checkpoints hold.
        ahead = max(2, 2 * self.local_batch // self.workers) if self.workers else None
        return DataLoader(
            self.reader,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=ahead,
            collate_fn=_unchanged,
            generator=torch.Generator(),
        )


def _unchanged(clip: Clip) -> Clip:
    return clip


def collate(clips: Sequence[Clip], vocabulary: Vocabulary) -> Batch:
    """B clips -> frames uint8 (B, T, H, W, 3), tokens int64 (B, K, words), mask bool (B, K)."""
    return {
        "frames": torch.stack([clip["frames"] for clip in clips]),
        "tokens": torch.stack([vocabulary.encode(clip["narrations"]) for clip in clips]),
        "mask": torch.stack([clip["narration_mask"] for clip in clips]),
    }


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, frames as float (B, 3, T, H, W) in [0, 1].

    What comes from the reader is channels-last already, so that the new order of axes costs no copy.
    """
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    moved["frames"] = moved["frames"].permute(0, 4, 1, 2, 3).float().div_(255)
    if device.type == "cpu":  # plain order is the quicker one there
        moved["frames"] = moved["frames"].contiguous()
    return moved
