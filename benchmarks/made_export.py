"""An export of real tars with their indexes and manifest, made in seconds: for what reads bytes.

Clips are random bytes, or one real clip again and again; the JSON beside them is as long as that of real samples.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from sayso.root import Root
from sayso.rows import Shard
from shards.manifest import publish_manifest
from shards.write import Sample, canonical_json, index_tar, write_index, write_tar

EXPORT = "clips"
SECONDS = 4.0
_CANDIDATES = 5
_CLIPS_OF_A_VIDEO = 8


def made_export(folder: Path, *, shards: int, samples: int, clip: bytes | int) -> str:
    """The URL of an export under a new root in `folder`; `clip` is one, or how many random bytes each has."""
    root = Root(str(folder)).create()
    rows = [_shard(root, number, samples, clip).model_dump() for number in range(shards)]
    root.table(Shard).append([{**row, "made_by": "benchmark", "made_from": "benchmark"} for row in rows])
    publish_manifest(root, EXPORT)
    return f"{root.url}/shards/{EXPORT}"


def _shard(root: Root, number: int, samples: int, clip: bytes | int) -> Shard:
    name = f"train-{number:06d}"
    with TemporaryDirectory(prefix="sayso-benchmark-") as scratch:
        tar, index = Path(scratch) / "tar", Path(scratch) / "index"
        write_tar(_samples(number, samples, clip), tar)
        read_back = index_tar(tar)
        write_index(read_back, index)
        stored = root.storage.put_file(tar, f"shards/{EXPORT}/{name}.tar")
        stored_index = root.storage.put_file(index, f"shards/{EXPORT}/{name}.index.parquet")
    return Shard(
        export=EXPORT,
        shard=name,
        split="train",
        version=0,
        key=stored.key,
        sha256=stored.sha256,
        bytes=stored.bytes,
        index_key=stored_index.key,
        index_sha256=stored_index.sha256,
        index_bytes=stored_index.bytes,
        samples=samples,
        seconds=SECONDS * samples,
        video_ids=sorted(set(read_back["video_id"].to_pylist())),
    )


def _samples(shard: int, samples: int, clip: bytes | int) -> Iterator[Sample]:
    generator = random.Random(shard)
    for number in range(samples):
        video = f"site:{shard:05d}-{number // _CLIPS_OF_A_VIDEO:04d}"
        start = SECONDS * (number % _CLIPS_OF_A_VIDEO)
        words = " ".join(f"word{generator.randrange(10**6)}" for _ in range(12))
        candidate = {"narration_id": f"{video}@{start}", "text": words, "start": start, "end": start + SECONDS}
        facts = {
            "video_id": video,
            "start": start,
            "end": start + SECONDS,
            "clip_start": start,
            "clip_end": start + SECONDS,
            "text": words,
            "language": "en",
            "task_id": None,
            "candidates": [candidate] * _CANDIDATES,
        }
        data = clip if isinstance(clip, bytes) else generator.randbytes(clip)
        yield Sample(f"{video.replace(':', '_')}_{number:04d}", {"mp4": data, "json": canonical_json(facts)})
