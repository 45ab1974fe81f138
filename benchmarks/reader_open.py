"""How soon a reader gives its first samples, and how much memory opening takes.

    python -m benchmarks.reader_open [--s3]

100 million samples in 100,000 shards (a real manifest, no media) are opened by a rank of 64, which is asked where its
first 1,000 samples lie; once with torch, as a training run does, and once without. Each is a process of its own, whose
peak (VmHWM) and whose peak behind its imports alone are printed; `import torch` alone stands beside them.

The first batch is that of a real export of 64 shards of real clips (64 raw samples; 8 decoded clips of 32 frames, by
two loader workers), from the construction of the reader on; on S3 (SeaweedFS on this machine) with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHARDS = 100_000
CLIPS_SHARDS, CLIPS_SAMPLES = 64, 20
RAW, DECODED = 64, 8


def main(s3: bool) -> None:
    """Make what is read, and measure in processes of their own."""
    with tempfile.TemporaryDirectory(prefix="sayso-benchmark-") as name:
        folder = Path(name)
        _opening(folder)
        _first_batches(folder, s3)


def _opening(folder: Path) -> None:
    from benchmarks.big_export import big_export

    url = big_export(folder / "big", SHARDS)
    print(f"{SHARDS:,} shards of 1,000 samples (targets: opened within 2 s and 300 MB, 1,000 positions within 2 s)")
    _ask("torch-alone", url)
    for mode in ("with-torch", "with-torch-per-video", "without-torch", "without-torch-per-video"):
        _ask(mode, url)


def _first_batches(folder: Path, s3: bool) -> None:
    from benchmarks.made_export import made_export
    from sayso.storage import Storage
    from tests.seaweed import SeaweedFS
    from tests.shards.conftest import Lab

    Lab.make_proxy(folder / "clip.mp4", 4)
    clip = (folder / "clip.mp4").read_bytes()
    url = made_export(folder / "root", shards=CLIPS_SHARDS, samples=CLIPS_SAMPLES, clip=clip)
    print(f"first batch of {CLIPS_SHARDS} shards of clips of {len(clip) // 1000} kB (targets: 1 s locally, 2 s on S3)")
    _ask("first-batches", url)
    if s3:
        with SeaweedFS(folder / "server") as server:
            os.environ.update(server.environment)
            remote = Storage(f"{server.bucket('open')}/clips")
            for path in sorted(Path(url).iterdir()):
                remote.put_file(path, path.name)
            _ask("first-batches", remote.url, str(folder / "cache"))


def _ask(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.reader_open", "--part", *arguments], check=True)


def _peak() -> float:
    """The most memory this process held, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def open_with_torch(url: str, per_video: bool) -> None:
    """As a rank of a training run."""
    from itertools import islice

    from shards.reader import ClipReader, ReaderSettings

    imported = _peak()
    settings, readers = ReaderSettings(per_video=per_video), list[ClipReader]()
    opened = _timed(lambda: readers.append(ClipReader(url, settings=settings, seed=0, rank=5, world_size=64)))
    placed = _timed(lambda: list(islice(readers[0].places(), 1000)))
    _told(f"ClipReader, {_epoch(per_video)}", opened, placed, imported)


def open_without_torch(url: str, per_video: bool) -> None:
    """The part of the reader that says which sample comes when, and reads it."""
    import numpy as np

    from shards.mix import Source
    from shards.samples import ReadSettings, Samples

    imported = _peak()
    settings, readers = ReadSettings(per_video=per_video), list[Samples]()
    opened = _timed(lambda: readers.append(Samples([Source(url=url)], settings, seed=0)))
    placed = _timed(lambda: readers[0].places(0, 5 + 64 * np.arange(1000)))
    _told(f"Samples, no torch, {_epoch(per_video)}", opened, placed, imported)


def _epoch(per_video: bool) -> str:
    return "one clip a video" if per_video else "every clip"


def _told(what: str, opened: float, placed: float, imported: float) -> None:
    peak = _peak()
    print(
        f"  {what}: opened in {opened:.2f} s, 1,000 positions in {placed:.2f} s, "
        f"peak {peak:.0f} MB (imports alone {imported:.0f} MB, the data {peak - imported:.0f} MB)"
    )


def first_batches(url: str, cache: str | None) -> None:
    """Raw samples, then clips; each from a reader of its own."""
    from itertools import islice

    from torch.utils.data import DataLoader

    from shards.reader import ClipReader, ReaderSettings

    settings = ReaderSettings(per_video=False, cache_folder=Path(cache) if cache else None)

    def raw() -> None:
        assert len(list(islice(ClipReader(url, settings=settings, seed=0).raw(), RAW))) == RAW

    def decoded() -> None:
        reader = ClipReader(url, settings=settings, seed=1, batch_size=DECODED)
        loader = DataLoader(reader, batch_size=DECODED, num_workers=2, collate_fn=list)
        assert len(next(iter(loader))) == DECODED

    where = "S3" if cache else "local"
    print(f"  {where}: {RAW} raw samples after {_timed(raw):.2f} s")
    print(f"  {where}: {DECODED} decoded clips after {_timed(decoded):.2f} s")


def part(mode: str, url: str, cache: str | None = None) -> None:
    """One measurement."""
    if mode == "torch-alone":
        __import__("torch")
        print(f"  import torch alone: {_peak():.0f} MB")
    elif mode == "first-batches":
        first_batches(url, cache)
    else:
        opened = open_without_torch if mode.startswith("without") else open_with_torch
        opened(url, mode.endswith("per-video"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        part(*sys.argv[2:])
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--s3", action="store_true")
        main(parser.parse_args().s3)
