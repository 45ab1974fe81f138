"""The manifest of an export: what a reader needs that has neither Delta Lake nor sayso.

`shards/<export>/manifest.json` lists the tars with their split, samples, videos, sizes and checksums. Names are
relative to the manifest. `shared` names the few videos whose samples lie in more than one shard, with the samples in
each, so that an epoch of one clip a video can count them once.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sayso.errors import InputError
from sayso.root import Root
from sayso.rows import Shard, StoredObject
from sayso.storage import Storage

FORMAT = 2
NAME = "manifest.json"


def publish_manifest(root: Root, export: str) -> list[StoredObject]:
    """Write the manifest of an export from its published shards.

    Raises InputError where the export has no shards.
    """
    return [root.storage.put_bytes(data, key) for key, data in manifest_objects(root, export).items()]


def manifest_objects(root: Root, export: str) -> dict[str, bytes]:
    """The objects that make up an export's manifest, by key. The same shards give the same bytes.

    Raises InputError where the export has no shards.
    """
    shards = sorted(root.table(Shard).rows(export=export), key=lambda shard: shard.shard)
    if not shards:
        raise InputError(f"export {export!r} has no shards; `sayso shard` makes them")
    splits = {}
    for split in sorted({shard.split for shard in shards}):
        own = [shard for shard in shards if shard.split == split]
        splits[split] = {
            "shards": len(own),
            "samples": sum(shard.samples for shard in own),
            "videos": len({video for shard in own for video in shard.video_ids}),
            "seconds": round(sum(shard.seconds for shard in own), 3),
            "bytes": sum(shard.bytes for shard in own),
        }
    manifest = {
        "format": FORMAT,
        "export": export,
        "splits": splits,
        "shared": _shared(root.storage, shards),
        "shards": [_entry(shard) for shard in shards],
    }
    text = json.dumps(manifest, sort_keys=True, indent=1) + "\n"
    return {f"shards/{export}/{NAME}": text.encode()}


def _entry(shard: Shard) -> dict[str, Any]:
    return {
        "shard": shard.shard,
        "split": shard.split,
        "tar": shard.key.rpartition("/")[2],
        "bytes": shard.bytes,
        "sha256": shard.sha256,
        "index": shard.index_key.rpartition("/")[2],
        "index_bytes": shard.index_bytes,
        "index_sha256": shard.index_sha256,
        "samples": shard.samples,
        "videos": len(shard.video_ids),
        "seconds": shard.seconds,
    }


def _shared(storage: Storage, shards: list[Shard]) -> dict[str, list[list[Any]]]:
    """Of each video with samples in several shards: [[shard, samples in it], ...]."""
    times = Counter(video for shard in shards for video in shard.video_ids)
    shared: dict[str, list[list[Any]]] = {video: [] for video in sorted(times) if times[video] > 1}
    for shard in shards:
        if not any(video in shared for video in shard.video_ids):
            continue
        column = pq.read_table(pa.BufferReader(storage.read(shard.index_key)), columns=["video_id"])["video_id"]
        for counted in pc.value_counts(column).to_pylist():
            if counted["values"] in shared:
                shared[counted["values"]].append([shard.shard, counted["counts"]])
    return shared
