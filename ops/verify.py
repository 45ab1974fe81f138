"""Re-read every table and every object that a row vouches for, and name what is not whole."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel

from sayso.errors import CorruptObject, StorageError
from sayso.root import Root
from sayso.rows import TABLES, StoredObject

# Hashing waits for storage more than for the processor.
_READERS = 4


class Verified(BaseModel):
    """What was read, and what is wrong. `extra` are objects that no row vouches for: left by a killed run,
    they are written again under the same key when it goes on.
    """

    root: str
    tables: int
    rows: int
    objects: int
    bytes: int
    problems: list[str]
    extra: list[str]


def verify(root: Root, watch: Callable[[int, int], None] = lambda done, total: None) -> Verified:
    """Check every table and object of a root; `watch` is told objects done and in all."""
    expected: dict[str, StoredObject] = {}
    problems: list[str] = []
    tables = rows = 0
    for model in TABLES:
        table = root.table(model)
        if not table.exists():
            continue
        tables += 1
        try:
            for row in table.rows():
                rows += 1
                expected.update((item.key, item) for item in row.objects())
        except StorageError as error:
            problems.append(str(error).removeprefix(f"{root.url}/"))
    done = 0
    with ThreadPoolExecutor(_READERS) as readers:
        for problem in readers.map(lambda item: _problem(root, item), expected.values()):
            done += 1
            watch(done, len(expected))
            if problem:
                problems.append(problem)
    return Verified(
        root=root.url,
        tables=tables,
        rows=rows,
        objects=len(expected),
        bytes=sum(item.bytes for item in expected.values()),
        problems=sorted(problems),
        extra=_extra(root, expected),
    )


def _problem(root: Root, item: StoredObject) -> str | None:
    try:
        root.storage.check(item)
    except CorruptObject as error:
        return str(error)
    return None


def _extra(root: Root, expected: dict[str, StoredObject]) -> list[str]:
    found = [key for prefix in ("media", "shards") for key in root.storage.list(prefix)]
    return [key for key in found if key not in expected and not key.endswith(".json")]
