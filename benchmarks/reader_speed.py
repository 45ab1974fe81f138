"""Samples a second without decoding: sayso's reader beside webdataset's, on the same tars, one process each.

    python -m benchmarks.reader_speed [SHARDS] [--s3]

Both give the bytes of every member of every sample; neither parses the JSON. webdataset goes through the tars from
their beginning to their end (its own way: plain paths; on S3 its http handler, which is curl, on presigned URLs). sayso
goes through them in the shuffled order of an epoch, all samples mixed, and checks every member's CRC-32. Locally the
tars are in the page cache for both; on S3 (SeaweedFS on this machine) sayso begins with an empty cache, and once more
with a full one. The best of several rounds in turn counts for each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import s3fs
import webdataset

from benchmarks.made_export import made_export
from sayso.storage import Storage
from shards.reader import ClipReader, ReaderSettings
from tests.seaweed import SeaweedFS

SAMPLES, CLIP_BYTES, ROUNDS = 1000, 60_000, 3
BLOCK = 4  # shards that are shuffled together: a few blocks have to fit into what this makes
_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "endpoint_url"}


def main(shards: int, s3: bool) -> None:
    """Make the tars, and read them on every side."""
    with tempfile.TemporaryDirectory(prefix="sayso-benchmark-") as name:
        folder = Path(name)
        url = made_export(folder / "root", shards=shards, samples=SAMPLES, clip=CLIP_BYTES)
        print(f"{shards} tars of {SAMPLES} samples of {CLIP_BYTES // 1000} kB, read by one process, not decoded")
        if s3:
            on_s3(url, folder, shards * SAMPLES)
        else:
            local(url, shards * SAMPLES)


def local(url: str, samples: int) -> None:
    """On the local disk, out of the page cache."""
    paths = sorted(map(str, Path(url).glob("*.tar")))
    best = rounds(
        {
            "webdataset": lambda: rate(webdataset.WebDataset(paths, shardshuffle=False), samples),
            "sayso": lambda: rate(ClipReader(url, settings=settings(), seed=0).raw(), samples),
        }
    )
    told("local", best, "sayso")


def on_s3(url: str, folder: Path, samples: int) -> None:
    """On a server of S3 on this machine."""
    with SeaweedFS(folder / "server") as server:
        os.environ.update(server.environment)
        remote = Storage(f"{server.bucket('speed')}/clips")
        for path in sorted(Path(url).iterdir()):
            remote.put_file(path, path.name)
        client = s3fs.S3FileSystem(**{ours: server.environment[name] for name, ours in _KEYS.items()})
        signed = [client.sign(remote.path(path.name), expiration=36_000) for path in sorted(Path(url).glob("*.tar"))]
        cache = folder / "cache"

        def cold() -> float:
            shutil.rmtree(cache, ignore_errors=True)
            return warm()

        def warm() -> float:
            return rate(ClipReader(remote.url, settings=settings(cache_folder=cache), seed=0).raw(), samples)

        best = rounds(
            {
                "webdataset": lambda: rate(webdataset.WebDataset(signed, shardshuffle=False), samples),
                "sayso, empty cache": cold,
                "sayso, full cache": warm,
            }
        )
        told("S3", best, "sayso, empty cache")


def settings(**changed: Any) -> ReaderSettings:
    """An epoch of all clips."""
    return ReaderSettings(per_video=False, block_shards=BLOCK, **changed)


def rate(samples: Iterable[Any], expected: int) -> float:
    """Samples a second, from the first one asked for to the last one had."""
    began = time.perf_counter()
    count = sum(1 for _ in samples)
    assert count == expected, f"{count} samples, {expected} written"
    return count / (time.perf_counter() - began)


def rounds(sides: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The best of each side, in turn, so that what else the machine does falls on all alike."""
    best = dict.fromkeys(sides, 0.0)
    for _ in range(ROUNDS):
        for name, side in sides.items():
            best[name] = max(best[name], side())
    return best


def told(where: str, best: dict[str, float], ours: str) -> None:
    """Print the rates and the ratio that there is a target for."""
    for name, found in best.items():
        print(f"{where}: {name}: {found:,.0f} samples/s")
    print(f"{where}: {best[ours] / best['webdataset']:.2f} x webdataset (target: at least 1)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", type=int, nargs="?", default=12)
    parser.add_argument("--s3", action="store_true")
    given = parser.parse_args()
    main(given.shards, given.s3)
