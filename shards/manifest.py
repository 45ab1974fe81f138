"""Write the manifest of an export: what a reader needs that has neither Delta Lake nor sayso.

    shards/<export>/manifest.json      for people: the splits with their shards, samples, videos, seconds and bytes
    shards/<export>/manifest.parquet   for readers: the same, and a row a shard (shards/contents.py)

Readers take the second only, so that what they see is one object, replaced whole.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sayso.errors import InputError
from sayso.root import Root
from sayso.rows import Shard, StoredObject
from sayso.storage import Storage
from shards.contents import FACTS, FORMAT, NAME, ROWS, SCHEMA, SUMMARY


def publish_manifest(root: Root, export: str) -> list[StoredObject]:
    """Write the manifest of an export from its published shards.

    Raises InputError where the export has no shards.
    """
    return [root.storage.put_bytes(data, key) for key, data in manifest_objects(root, export).items()]


def manifest_objects(root: Root, export: str) -> dict[str, bytes]:
    """The objects that make up an export's manifest, by key. The same shards give the same bytes.

    Raises InputError where the export has no shards.
    """
    shards = sorted(root.table(Shard).rows(export=export), key=lambda shard: (shard.split, shard.shard))
    if not shards:
        raise InputError(f"export {export!r} has no shards; `sayso shard` makes them")
    splits = sorted({shard.split for shard in shards})
    facts = {
        "format": FORMAT,
        "export": export,
        "splits": {split: _totals([shard for shard in shards if shard.split == split]) for split in splits},
    }
    shared = _shared(root.storage, shards)
    rows = [_row(shard) | {"shared": shared.get(shard.shard, [])} for shard in shards]
    return {
        f"shards/{export}/{SUMMARY}": (json.dumps(facts, sort_keys=True, indent=1) + "\n").encode(),
        f"shards/{export}/{NAME}": table_bytes(pa.Table.from_pylist(rows, schema=SCHEMA), facts),
    }


def table_bytes(table: pa.Table, facts: dict[str, Any]) -> bytes:
    """A table of SCHEMA, by split and shard, and the summary, as they are stored for readers."""
    stored = table.replace_schema_metadata({FACTS: json.dumps(facts, sort_keys=True)})
    buffer = io.BytesIO()
    pq.write_table(stored, buffer, compression="zstd", row_group_size=ROWS)
    return buffer.getvalue()


def _totals(shards: Sequence[Shard]) -> dict[str, Any]:
    content = [[shard.shard, shard.samples, len(shard.video_ids), shard.sha256] for shard in shards]
    return {
        "shards": len(shards),
        "samples": sum(shard.samples for shard in shards),
        "videos": len({video for shard in shards for video in shard.video_ids}),
        "seconds": round(sum(shard.seconds for shard in shards), 3),
        "bytes": sum(shard.bytes for shard in shards),
        "digest": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
    }


def _row(shard: Shard) -> dict[str, Any]:
    return {
        "shard": shard.shard,
        "split": shard.split,
        "samples": shard.samples,
        "videos": len(shard.video_ids),
        "seconds": shard.seconds,
        "bytes": shard.bytes,
        "sha256": bytes.fromhex(shard.sha256),
        "index_bytes": shard.index_bytes,
        "index_sha256": bytes.fromhex(shard.index_sha256),
    }


def _shared(storage: Storage, shards: Sequence[Shard]) -> dict[str, list[dict[str, int]]]:
    """The column `shared` of the shards that have such videos."""
    times = Counter(video for shard in shards for video in shard.video_ids)
    numbers = {video: number for number, video in enumerate(video for video in sorted(times) if times[video] > 1)}
    shared = {}
    for shard in shards:
        own = [(place, video) for place, video in enumerate(sorted(shard.video_ids)) if video in numbers]
        if own:
            samples = _samples_of_videos(storage, shard)
            shared[shard.shard] = [{"place": place, "samples": samples[v], "number": numbers[v]} for place, v in own]
    return shared


def _samples_of_videos(storage: Storage, shard: Shard) -> dict[str, int]:
    column = pq.read_table(pa.BufferReader(storage.read(shard.index_key)), columns=["video_id"])["video_id"]
    return {counted["values"]: counted["counts"] for counted in pc.value_counts(column).to_pylist()}
