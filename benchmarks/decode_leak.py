"""Memory of a loader's worker over 10,000 clips: 32 frames of 224 px with their log-mel spectrograms, random crops.

    python -m benchmarks.decode_leak [--media ../shared/media] [--clips 10000]

The clips are those of benchmarks/decode.py, over and over. Prints how large the worker is at each tenth, and what it
grew by from the first fifth on, where its caches and its heap have found their size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.decode import MEDIA, Film, samples
from shards.clips import ClipSettings, make_clip
from shards.sound import SoundSettings

MOST_GROWTH = 0.05


class Decoding(IterableDataset[float]):
    """Decodes so many clips and says ten times how many MB the process has."""

    def __init__(self, films: list[Film], clips: int) -> None:
        self._films, self._clips = films, clips
        self._settings = ClipSettings(sound=SoundSettings(form="log_mel"))

    def __iter__(self) -> Iterator[float]:
        process = psutil.Process()
        for number in range(self._clips):
            make_clip(self._films[number % len(self._films)].sample, self._settings, f"{number}")
            if (number + 1) % (self._clips // 10) == 0:
                yield process.memory_info().rss / 2**20


def main() -> None:
    """Decode them all in a worker and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--clips", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        films = samples(asked.media, Path(folder), count=60)
        sizes = list(DataLoader(Decoding(films, asked.clips), batch_size=None, num_workers=1))
    for tenth, size in enumerate(sizes, 1):
        print(f"{tenth * asked.clips // 10:6} clips {size:7.1f} MB")
    grown = max(sizes[2:]) / sizes[1] - 1
    print(f"grown by {100 * grown:.1f} % behind the first fifth (at most {100 * MOST_GROWTH:.0f} % asked)")
    sys.exit(grown > MOST_GROWTH)


if __name__ == "__main__":
    main()
