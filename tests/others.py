"""Other people's readers of WebDataset tars, run by .venv-others/bin/python (`make setup` and tests/others.lock).

    python tests/others.py datasets|ray CACHE TAR...

Prints a JSON object: of each sample by its key the SHA-256 of its clip, and its facts as they were read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

Found = Iterator[tuple[str, Any, Any]]


def by_datasets(tars: Sequence[str], cache: str) -> Found:
    """Hugging Face's loader, as its documentation calls it."""
    import datasets

    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": list(tars)}, split="train", cache_dir=cache, streaming=True
    )
    for sample in loaded.cast_column("mp4", datasets.Video(decode=False)):
        yield sample["__key__"], sample["mp4"]["bytes"], sample["json"]


def by_ray(tars: Sequence[str], cache: str) -> Found:
    """Ray Data's read_webdataset, with the decoder that it has by default."""
    import ray
    import ray.data

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    for row in ray.data.read_webdataset(list(tars)).take_all():
        data = row["mp4"]
        yield row["__key__"], data if isinstance(data, bytes) else data.getvalue(), row["json"]
    ray.shutdown()


def main(reader: str, cache: str, *tars: str) -> None:
    """Read, and print what was read."""
    found = {"datasets": by_datasets, "ray": by_ray}[reader](tars, cache)
    read = {
        key: [hashlib.sha256(clip).hexdigest(), json.loads(facts) if isinstance(facts, str | bytes) else facts]
        for key, clip, facts in found
    }
    json.dump(read, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
