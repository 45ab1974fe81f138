"""A root as a long ingestion leaves it, made in seconds: for what must not get slow with the number of videos.

    python benchmarks/large_root.py FOLDER [DONE] [PENDING]

DONE videos (1.2 million, if nothing is said) are fetched, transcribed and aligned, and had no captions; PENDING more
(1000) are known and not fetched. The tables are real; there are no objects behind them. Rows are tiny, keys are not:
16 random characters, so that they neither compress nor sort as counted numbers would.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from sayso.arrow import MADE_BY, MADE_FROM, schema
from sayso.root import Root
from sayso.rows import Failure, Media, Narration, Row, SourceFacts, Transcript, Video, now

_KEY_CHARACTERS = 16
# Rows of a commit: a root that was compacted now and then has files of about this size.
_BLOCK = 200_000


def large_root(folder: str, done: int = 1_200_000, pending: int = 1_000) -> Root:
    """Make a root with `done` videos that went through fetch, transcribe, captions and align, and `pending` more."""
    root = Root(folder).create()
    keys = _keys(done + pending)
    ready = keys[:done]
    facts = SourceFacts(sha256="0" * 64, bytes=1, container="mp4", duration=10.0)
    media = {
        "key": "media/proxy.mp4", "sha256": "0" * 64, "bytes": 1, "duration": 10.0, "width": 1, "height": 1,
        "fps": 10.0, "audio": True, "still": [], "captions": [], "originals": [], "source": facts.model_dump(),
        "normalised_with": "",
    }  # fmt: skip
    transcript = {"source": "asr:tiny.en", "language": "en", "speech_seconds": 1.0, "spans": []}
    narration = {
        "start": 0.0, "end": 1.0, "text": "stir", "source": "asr:tiny.en", "language": "en", "kept": True, "reason": "",
    }  # fmt: skip
    skip = {"kind": "skip", "reason": "no_captions", "message": "no captions came with it", "attempts": 1}
    _fill(root, Video, "discover", keys, ["video_id", "url"], {"title": "", "found_by": "made", "found_at": now()})
    _fill(root, Media, "fetch", ready, ["video_id"], media)
    _fill(root, Transcript, "transcribe", ready, ["video_id"], transcript)
    _fill(root, Failure, "captions", ready, ["id"], {"stage": "captions", "when": now(), **skip})
    _fill(root, Narration, "align", ready, ["narration_id", "video_id"], narration)
    return root


def _fill(
    root: Root, model: type[Row], made_by: str, keys: pa.Array, named: list[str], same: Mapping[str, Any]
) -> None:
    """Append a row a key: the columns `named` hold the key, all others what `same` says or nothing."""
    wanted = schema(model)

    def column(field: pa.Field, block: pa.Array) -> pa.Array:
        if field.name in [*named, MADE_FROM]:
            return block
        value = made_by if field.name == MADE_BY else same.get(field.name)
        return pa.repeat(pa.scalar(value, field.type), len(block))

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            yield pa.record_batch([column(field, block) for field in wanted], schema=wanted)

    for batch in batches():
        write_deltalake(root.table(model).url, batch, mode="append")


def _keys(count: int) -> pa.StringArray:
    """Different keys, the same ones every time."""
    data = np.random.default_rng(1).bytes(count * _KEY_CHARACTERS // 2).hex().encode()
    offsets = np.arange(0, (count + 1) * _KEY_CHARACTERS, _KEY_CHARACTERS, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data))


if __name__ == "__main__":
    began = time.monotonic()
    made = large_root(sys.argv[1], *map(int, sys.argv[2:]))
    print(f"{made.url}: made in {time.monotonic() - began:.1f} s")
