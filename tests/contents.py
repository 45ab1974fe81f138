"""What two runs over the same videos must agree on: the content of all tables, and the bytes of all objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.root import Root
from sayso.rows import Media, Narration, Plan, Row, Shard, Transcript, Video

TABLES: tuple[type[Row], ...] = (Video, Media, Transcript, Narration, Plan, Shard)
# When something was found, and at which version of a table: true of a run, not of what it made.
_OF_THE_RUN = {"found_at", "version"}


def content_hash(root: Root) -> dict[str, str]:
    """The SHA-256 of each table's rows, whatever their order, and of each shard's tar and index as they are stored."""
    found = {f"table {model.table}": _table_hash(root, model) for model in TABLES}
    for shard in root.table(Shard).rows():
        for item in shard.objects():
            assert item.key not in found, f"{item.key} was published twice"
            found[item.key] = hashlib.sha256(root.storage.read(item.key)).hexdigest()
    return found


def _table_hash(root: Root, model: type[Row]) -> str:
    rows = sorted(repr(tuple(_of_the_content(row))) for row in root.table(model).read().to_pylist())
    return f"{len(rows)} rows {hashlib.sha256(chr(10).join(rows).encode()).hexdigest()}"


def _of_the_content(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(row.items()):
        if name not in _OF_THE_RUN and not (name in (MADE_BY, MADE_FROM) and row[MADE_BY] in ("discover", "plan")):
            yield name, value
