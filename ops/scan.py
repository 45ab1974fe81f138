"""Looking for ids in all that lies under a root, whatever its form: the proof that something was forgotten.

*.parquet        every text in every column of every row, nested ones too, live or out of use
*.tar            the names of all members, and the bytes of those that are JSON
media, features  their keys only: an id is not in pictures, sound or numbers
everything else  all bytes: logs, manifests, settings, captions, half-written files
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from sayso.errors import CorruptObject
from sayso.ids import safe
from sayso.rewrite import batches
from sayso.storage import PARTIAL, Storage

_MEDIA = (".mp4", ".m4a", ".jpg", ".npy", ".mkv", ".webm", ".mov", ".avi", ".ts", ".mp3", ".ogg", ".wav", ".flac")
_CHUNK_BYTES = 4 << 20
_MOST_EXAMPLES = 20


class Scanned(BaseModel):
    """What was looked through, and where an id was found: a line each, at most a few."""

    objects: int = 0
    bytes: int = 0
    rows: int = 0
    tar_members: int = 0
    found: list[str] = []


class Names:
    """Ids to look for: as they are, and as they stand in the keys of samples."""

    def __init__(self, ids: Collection[str]) -> None:
        assert ids, "nothing to look for"
        self.ids = frozenset(ids)
        self._parts = sorted({form for each in ids for form in (each, safe(each))})
        forms = "|".join(
            f"{re.escape(each)}(?![A-Za-z0-9_-])|{re.escape(safe(each))}(?=_[0-9]{{9}}|\\.)" for each in ids
        )
        # An id may be the beginning or the end of another one.
        self._text = re.compile(f"(?<![A-Za-z0-9_:-])(?:{forms})")
        self._bytes = re.compile(self._text.pattern.encode())

    @property
    def longest(self) -> int:
        """Bytes that an id and what tells it from a longer one take at most."""
        return max(len(part.encode()) for part in self._parts) + 12

    def in_text(self, text: str) -> str | None:
        """An id that stands in a text."""
        found = self._text.search(text)
        return found[0] if found else None

    def in_bytes(self, data: bytes) -> str | None:
        """An id that stands in bytes."""
        found = self._bytes.search(data)
        return found[0].decode() if found else None

    def in_array(self, texts: pa.Array) -> str | None:
        """An id that stands in one of many texts."""
        for part in self._parts:
            hits = texts.filter(pc.match_substring(texts, part)) if len(texts) else texts
            for text in hits.to_pylist():
                if found := self.in_text(text):
                    return found
        return None


def scan(storage: Storage, names: Names, leave_out: str) -> Scanned:
    """Look through every object, but those under the prefix `leave_out`; nothing is changed."""
    seen = Scanned()
    for key in storage.list("", partial=True):
        if key.startswith(leave_out):
            continue
        seen.objects += 1
        found = names.in_text(key)
        places = [f"in the key {key}"] if found else []
        places += [f"in {key}: {place}" for place in _places(storage, key, names, seen)]
        seen.found += places[: max(0, _MOST_EXAMPLES - len(seen.found))]
    return seen


def _places(storage: Storage, key: str, names: Names, seen: Scanned) -> Iterator[str]:
    look: Callable[[Storage, str, Names, Scanned], Iterator[str]]
    if key.endswith(_MEDIA):
        return
    seen.bytes += storage.size(key)
    whole = PARTIAL not in key
    look = _in_parquet if whole and key.endswith(".parquet") else _in_tar if whole and key.endswith(".tar") else _in_raw
    try:
        yield from look(storage, key, names, seen)
    except (pa.ArrowException, OSError, CorruptObject, tarfile.TarError) as error:
        yield f"cannot be read ({error})"


def _in_parquet(storage: Storage, key: str, names: Names, seen: Scanned) -> Iterator[str]:
    with storage.open(key) as file, pq.ParquetFile(file) as parquet:
        remarks = parquet.schema_arrow.metadata or {}
    yield from filter(None, (names.in_bytes(value) for value in remarks.values()))
    for batch in batches(storage, key):
        seen.rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for texts in texts_of(column):
                if found := names.in_array(texts):
                    yield f"{found} in column {name}"
                    return


def texts_of(column: pa.Array) -> Iterator[pa.Array]:
    """All texts of a column, those inside lists, structs and maps too."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield column.drop_null()
    elif pa.types.is_map(kind):
        yield from texts_of(column.keys)
        yield from texts_of(column.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from texts_of(column.flatten())
    elif pa.types.is_struct(kind):
        for part in column.flatten():
            yield from texts_of(part)


def _in_tar(storage: Storage, key: str, names: Names, seen: Scanned) -> Iterator[str]:
    with storage.open(key) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            seen.tar_members += 1
            if found := names.in_text(member.name):
                yield f"{found} names a member"
                return
            content = tar.extractfile(member) if member.name.endswith(".json") else None
            if content and (found := names.in_bytes(content.read())):
                yield f"{found} in {member.name}"
                return


def _in_raw(storage: Storage, key: str, names: Names, seen: Scanned) -> Iterator[str]:
    with storage.open(key) as file:
        before = b""
        while chunk := file.read(_CHUNK_BYTES):
            if found := names.in_bytes(before + chunk):
                yield found
                return
            before = (before + chunk)[-names.longest :]
