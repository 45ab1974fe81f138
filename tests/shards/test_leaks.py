"""A loader's worker decodes clip after clip and does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from torch.utils.data import DataLoader, IterableDataset

from shards.clips import ClipSettings, make_clip
from shards.cut import Proxy
from shards.library import RawSample
from shards.sound import SoundSettings

CLIPS, EVERY, WARM = 1600, 25, 400
MOST_BYTES = 5 << 20
"""What the worker may grow by in 600 clips; losing one picture (12 KB) a clip would come to 7.2 MB.

A process takes memory of the kernel in pieces of up to 2 MB.
"""


class Decoding(IterableDataset[float]):
    """Decodes the same sample over and over, in another way each time, and says how large the process is."""

    def __init__(self, sample: RawSample, settings: ClipSettings) -> None:
        self._sample, self._settings = sample, settings

    def __iter__(self) -> Iterator[float]:
        torch.set_num_threads(1)
        process = psutil.Process()
        for number in range(CLIPS):
            clip = make_clip(self._sample, self._settings, f"{number}")
            assert clip["sound_mask"].all()
            if number % EVERY == 0:
                yield float(process.memory_info().rss)


def test_a_worker_does_not_grow(proxy: Path) -> None:
    with Proxy(proxy) as source:
        clip = source.cut(2, 5)
    said = {"narration_id": "n", "start": 2.0, "end": 4.9, "text": "a beep"}
    facts = {"video_id": "v", "start": 2.0, "end": 4.9, "clip_start": clip.start, "clip_end": clip.end}
    sample = RawSample("key", {"mp4": clip.data}, {**facts, "candidates": [said]})
    settings = ClipSettings(frames=8, size=64, crop="resized", sound=SoundSettings(form="log_mel", rate=8000))
    # A fresh process: one that is forked has all of ours, and grows as it writes on what it shares with us.
    decoding = Decoding(sample, settings)
    loader = DataLoader(decoding, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    sizes = list(loader)[WARM // EVERY :]
    half = len(sizes) // 2
    assert max(sizes[half:]) - max(sizes[:half]) < MOST_BYTES
