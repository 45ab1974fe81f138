"""An export as large as exports get, made in a second: its manifest is real, and there are no tars behind it.

For what must not get slow, or large in memory, with the number of samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.contents import FORMAT, NAME, SCHEMA
from shards.manifest import table_bytes

SAMPLES_PER_SHARD = 1000
VIDEOS_PER_SHARD = 125


def big_export(folder: Path, shards: int) -> str:
    """The URL of an export of so many shards in one split, train; each shares a video with the next one."""
    generator = np.random.default_rng(0)
    digests = [pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), shards, [None, pa.py_buffer(generator.bytes(32 * shards))]
    ) for _ in range(2)]  # fmt: skip
    columns = {
        "shard": [f"train-{number:06d}" for number in range(shards)],
        "split": ["train"] * shards,
        "samples": np.full(shards, SAMPLES_PER_SHARD),
        "videos": np.full(shards, VIDEOS_PER_SHARD),
        "seconds": np.full(shards, 8.0 * SAMPLES_PER_SHARD),
        "bytes": generator.integers(90_000_000, 110_000_000, shards),
        "sha256": digests[0],
        "index_bytes": np.full(shards, 60_000),
        "index_sha256": digests[1],
        "shared": [
            [
                {"place": 0, "samples": 4, "number": number},
                {"place": VIDEOS_PER_SHARD - 1, "samples": 4, "number": number + 1},
            ]
            for number in range(shards)
        ],
    }
    table = pa.table({name: pa.array(column, SCHEMA.field(name).type) for name, column in columns.items()})
    totals = {"samples": shards * SAMPLES_PER_SHARD, "shards": shards, "digest": "made"}
    facts = {"format": FORMAT, "export": "big", "splits": {"train": totals}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(table_bytes(table.cast(SCHEMA), facts))
    return str(folder)
