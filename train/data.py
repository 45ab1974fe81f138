"""From the reader's clips to batches on the device.

The reader decides which clip comes when (shards/reader.py); here clips are decoded by loader workers, joined to batches
and counted. The position is counted in steps that were taken, not in clips that were fetched ahead.
"""

import functools
import hashlib
import importlib
import itertools
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sayso.errors import ConfigError
from shards.clips import Clip
from shards.reader import ClipReader
from train.recipe import DataSettings
from train.vocabulary import Vocabulary

Batch = dict[str, Any]
"""Tensors by the names of their fields, and under "keys" the keys of the samples."""
AHEAD = 2  # micro-batches that are fetched while a step is taken


def open_reader(settings: DataSettings, *, seed: int, rank: int = 0, world_size: int = 1) -> ClipReader:
    """The reader of a recipe's clips as one rank sees them."""
    return ClipReader(
        settings.sources,
        settings=settings.clips,
        seed=seed,
        rank=rank,
        world_size=world_size,
        batch_size=settings.batch // (world_size * settings.accumulate),
    )


def narrations(settings: DataSettings) -> Iterator[str]:
    """Every narration of the data once. Reads all of it, but decodes nothing."""
    every_clip = settings.clips.model_copy(update={"per_video": False})
    seen: set[str] = set()
    # Each source by itself: an epoch of a mix has some of them more than once, and of others a part.
    readers = (ClipReader([source], settings=every_clip, seed=0) for source in settings.sources)
    for sample in itertools.chain.from_iterable(reader.raw() for reader in readers):
        for candidate in sample.facts["candidates"]:
            if candidate["narration_id"] not in seen:
                seen.add(candidate["narration_id"])
                yield candidate["text"]


def steps_per_epoch(settings: DataSettings, reader: ClipReader) -> int:
    """Whole batches of an epoch, the same on every rank; ConfigError where there is not one."""
    steps = reader.samples // settings.batch
    if not steps:
        data = " and ".join(f"{source.url} ({source.split})" for source in settings.sources)
        raise ConfigError(f"data.batch {settings.batch} is more than the {reader.samples} clips an epoch has of {data}")
    return steps


def first_clips(settings: DataSettings) -> Iterator[tuple[str, Clip]]:
    """A clip of each source, with the source's URL: what its samples have."""
    for source in settings.sources:
        yield source.url, next(iter(ClipReader([source], settings=settings.clips, seed=0)))


class Batches:
    """This rank's micro-batches, from any step on: `settings.accumulate` of them a step."""

    def __init__(self, reader: ClipReader, vocabulary: Vocabulary, settings: DataSettings) -> None:
        self.reader, self.vocabulary, self.settings = reader, vocabulary, settings
        self.per_epoch = steps_per_epoch(settings, reader)

    def from_step(self, step: int, last: int) -> Iterator[Batch]:
        """Micro-batches of the steps [step, last), over as many epochs as they span, fetched ahead.

        By a thread where there are no workers: processes forked in the middle of a step may find a lock held for ever.
        Workers are an epoch's; those of the next one begin before it ends, so that no rank waits for its first batch.
        """
        batches = self._from_step(step, last)
        return batches if self.settings.workers else ahead(batches, AHEAD)

    def _from_step(self, step: int, last: int) -> Iterator[Batch]:
        following = self._rest_of_epoch(step, last)
        while following[1]:
            batches, left = following
            step += left // self.settings.accumulate
            # By then its workers are at their last micro-batches; those of the next epoch take as long for their first.
            begin_next = min(self.settings.workers, left - 1)
            for behind in reversed(range(left)):
                batch = next(batches)
                if behind == begin_next:
                    following = self._rest_of_epoch(step, last)
                yield batch

    def _rest_of_epoch(self, step: int, last: int) -> tuple[Iterator[Batch], int]:
        """The micro-batches of a step's epoch from there on, and how many of them there are up to step `last`."""
        wanted = min(self.per_epoch - step % self.per_epoch, last - step)
        if not wanted:
            return iter(()), 0
        self.reader.load_state_dict(self.state(step))
        return iter(self._loader()), wanted * self.settings.accumulate

    def state(self, step: int) -> dict[str, int]:
        """The reader's state after a step: what was trained on, not what workers have fetched ahead."""
        epoch, done = divmod(step, self.per_epoch)
        return self.reader.state_at(epoch, done * self.settings.batch)

    def _loader(self) -> DataLoader[Clip]:
        if self.settings.workers:
            importlib.import_module("av")  # before workers are forked, so that they share it
        return DataLoader(
            self.reader,
            batch_size=self.reader.batch_size,
            num_workers=self.settings.workers,
            collate_fn=functools.partial(collate, vocabulary=self.vocabulary),
            # A generator of its own keeps the loader's hands off the random state that checkpoints hold.
            generator=torch.Generator(),
            worker_init_fn=_hold_sigterm_back,
        )


def _hold_sigterm_back(worker: int) -> None:
    """Loaders end with their rank. Of a SIGTERM to all processes of a machine they would die before, and it of that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def ahead(batches: Iterator[Batch], most: int) -> Generator[Batch]:
    """The same batches, of which a thread gets at most so many before they are asked for.

    Decoding lets go of Python's lock, so the thread works while a step is taken. What goes wrong in it is raised where
    the batch is asked for.
    """
    with ThreadPoolExecutor(1, "batches") as thread:
        try:
            coming = deque(thread.submit(next, batches, None) for _ in range(most))
            while (batch := coming.popleft().result()) is not None:
                coming.append(thread.submit(next, batches, None))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)


def collate(clips: Sequence[Clip], vocabulary: Vocabulary) -> Batch:
    """B clips -> frames uint8 (B, T, H, W, 3), tokens int64 (B, K, words), mask bool (B, K), and their B keys.

    videos int64 (B,) has equal numbers for clips of one video, on all ranks. Samples of features give features float
    (B, K, F), and samples without pictures no frames.
    """
    seen = {"frames": [clip["frames"] for clip in clips]}
    seen["features"] = [clip["features"] for clip in clips if "features" in clip]
    return {
        **{name: torch.stack(parts) for name, parts in seen.items() if parts and parts[0].numel()},
        "tokens": torch.stack([vocabulary.encode(clip["narrations"]) for clip in clips]),
        "mask": torch.stack([clip["narration_mask"] for clip in clips]),
        "videos": torch.tensor([video_number(clip["video_id"]) for clip in clips]),
        "keys": [clip["key"] for clip in clips],
    }


def video_number(video_id: str) -> int:
    """A number for a video: 63 bits of a hash of its id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=8).digest()) >> 1


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, its frames as the towers take them."""
    moved = {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name != "frames"
    }
    return {**moved, "frames": frames_to_device(batch["frames"], device)} if "frames" in batch else moved


def frames_to_device(frames: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float (B, 3, T, H, W) in [0, 1] on the device, where the bytes become floats."""
    floats = frames.to(device, non_blocking=True).permute(0, 4, 1, 2, 3).float().div_(255)
    # The permuted order is channels-last, in which CUDA is quicker, and the batch norm of a CPU less exact.
    return floats if device.type == "cuda" else floats.contiguous()
