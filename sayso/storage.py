"""Objects under a root URL, through fsspec: a local folder, s3://bucket/prefix, anything fsspec knows.

An object appears under its key whole or not at all: locally it is written beside its place, synced and moved;
object stores show an upload only once it is complete. A remote store that fails is asked again for a while
(sayso/remote.py); locally nothing is tried twice.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from sayso.errors import CorruptObject, NoSpace, RootError
from sayso.patience import PATIENCE, Patience
from sayso.rows import StoredObject

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from sayso.s3 import PlainGets

log = logging.getLogger(__name__)

T = TypeVar("T")

_CHUNK_BYTES = 1 << 20
# One request for so much of a remote object that is read in order.
_RANGE_BYTES = 8 << 20
# So many plain requests may fail in a row before no more are tried.
_PLAIN_TRIES = 3
PARTIAL = ".partial-"


class Storage:
    """The objects of a root. Cheap to make and to pickle; opens its file system when first used.

    Of a remote store, every call may raise StorageError (it failed for as long as `patience` holds) and RootError
    (it refuses us: the message has the fix). RootError too for a URL that no file system is there for.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None, patience: Patience = PATIENCE) -> None:
        self.url = url.rstrip("/")
        self.options = options or {}
        self.patience = patience
        self._is_s3 = get_protocol(self.url) in ("s3", "s3a")
        try:
            self.fs, self.base = fsspec.url_to_fs(self.url, **self._given())
        except (ImportError, ValueError) as error:  # a scheme nobody knows, or whose library is not installed
            raise RootError(f"{self.url}: no file system for this URL ({error})") from error
        if self._is_s3:
            self.fs.retries = 1  # botocore and `persist` try again
        self._plain: PlainGets | None = None
        self._plain_failures = 0
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def __reduce__(self) -> tuple[type[Storage], tuple[str, dict[str, Any], Patience]]:
        return Storage, (self.url, self.options, self.patience)

    def _given(self) -> dict[str, Any]:
        if not self._is_s3:
            return self.options
        from sayso.s3 import s3_options

        return s3_options(self.options, self.patience)

    def _call(self, key: str, call: Callable[[], T]) -> T:
        if self.is_local:
            return call()
        # The clients of object stores take a fifth of a second to import, which a local root need not wait for.
        from sayso.remote import persist

        return persist(call, f"{self.url}/{key}", self.patience)

    def path(self, key: str) -> str:
        """The full path of a key inside the file system. Keys are relative and never climb."""
        parts = key.split("/")
        assert not {"", ".", ".."} & set(parts), f"not a key: {key!r}"
        return f"{self.base}/{key}"

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        try:
            self._call(key, lambda: self.fs.info(self.path(key)))
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """Bytes of an object; FileNotFoundError where there is none."""
        return int(self._call(key, lambda: self.fs.size(self.path(key))))

    def list(self, prefix: str, *, partial: bool = False) -> list[str]:
        """All keys under a prefix ("" for the root), sorted; half-written ones left out unless `partial`."""
        found = self._call(prefix, lambda: self.fs.find(self.path(prefix) if prefix else self.base))
        keys = (str(path)[len(self.base) + 1 :] for path in found)
        return sorted(key for key in keys if partial or PARTIAL not in key)

    def open(self, key: str) -> BinaryIO:
        """An object opened for reading."""
        if self.is_local:
            return cast(BinaryIO, self.fs.open(self.path(key), "rb"))
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(self, key), _RANGE_BYTES))

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes [start, end) of an object."""
        if start is not None and end is not None:
            data = self._plainly(lambda plain: plain.part(self.path(key), start, end))
            if data is not None:
                return data
        return bytes(self._call(key, lambda: self.fs.cat_file(self.path(key), start=start, end=end)))

    def copy_whole(self, key: str, file: BinaryIO, going: Callable[[], bool] = lambda: True) -> bool:
        """Write a whole object to a file, from its present place on, as fast as its store gives it.

        False where `going` says no on the way.
        """
        begin = file.tell()
        whole = self._plainly(lambda plain: _write_all(plain.whole(self.path(key)), file, going))
        if whole is not None:
            return whole
        file.seek(begin)
        size = self.size(key)
        pieces = (self.read(key, at, min(at + _RANGE_BYTES, size)) for at in range(0, size, _RANGE_BYTES))
        return _write_all(pieces, file, going)

    def _plainly(self, ask: Callable[[PlainGets], T]) -> T | None:
        """What a plain request gives, None where it gives nothing: then the file system has to be asked."""
        if not self._is_s3 or self._plain_failures >= _PLAIN_TRIES:
            return None
        from sayso.s3 import PlainGetFailed, PlainGets

        self._plain = self._plain or PlainGets(self.fs, self.patience)
        try:
            found = ask(self._plain)
        except PlainGetFailed as error:
            log.info("read through s3fs: %s", error)
            self._plain_failures += not error.known
            return None
        self._plain_failures = 0
        return found

    def put_file(self, source: Path, key: str) -> StoredObject:
        """Publish a local file under a key, replacing what is there; returns what was stored.

        Raises NoSpace where the disk is full; nothing is then left under the key.
        """
        digest, size = hash_file(source)
        with no_space_named(self.url):
            if self.is_local:
                self._put_local(source, Path(self.path(key)))
            elif self._is_s3:
                from sayso.s3 import Upload

                Upload(self.fs, self.path(key), self.patience).put(source)
            else:
                self._call(key, lambda: self.fs.put_file(str(source), self.path(key)))
        return StoredObject(key=key, sha256=digest, bytes=size)

    def put_bytes(self, data: bytes, key: str) -> StoredObject:
        """Publish bytes under a key, replacing what is there."""
        with tempfile.NamedTemporaryFile(prefix="sayso-") as file, no_space_named(self.url):
            file.write(data)
            file.flush()
            return self.put_file(Path(file.name), key)

    def _put_local(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
        try:
            with source.open("rb") as reader, partial.open("wb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
                writer.flush()
                os.fsync(writer.fileno())
            partial.replace(target)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()

    def remove(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with suppress(FileNotFoundError):
            self._call(key, lambda: self.fs.rm_file(self.path(key)))

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """An object as a local file, for as long as the context lasts. Not to be written to."""
        if self.is_local:
            path = Path(self.path(key))
            if not path.exists():
                raise FileNotFoundError(key)
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="sayso-") as folder:
            path = Path(folder) / Path(key).name
            with path.open("wb") as file, no_space_named(folder):
                self.copy_whole(key, file)
            yield path

    def check(self, expected: StoredObject) -> None:
        """Re-read an object; CorruptObject where it is missing, of another size or of other bytes."""
        try:
            size = self.size(expected.key)
        except FileNotFoundError:
            raise CorruptObject(f"{expected.key}: missing") from None
        if size != expected.bytes:
            raise CorruptObject(f"{expected.key}: {size} bytes, its row says {expected.bytes}")
        with self.open(expected.key) as file:
            digest = hash_stream(file)
        if digest != expected.sha256:
            raise CorruptObject(f"{expected.key}: SHA-256 is {digest[:12]}…, its row says {expected.sha256[:12]}…")


def _write_all(pieces: Iterable[Buffer], file: BinaryIO, going: Callable[[], bool]) -> bool:
    for piece in pieces:
        if not going():
            return False
        file.write(piece)
    return True


class _RemoteFile(io.RawIOBase):
    """A remote object, read by ranges: a read that fails is tried again without what was read before."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._key = storage, key
        self._size, self._at = storage.size(key), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        data = self._storage.read(self._key, self._at, end)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def hash_stream(file: BinaryIO) -> str:
    """SHA-256 of what is left in a file, in hex."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 in hex, and bytes, of a local file."""
    with path.open("rb") as file:
        return hash_stream(file), path.stat().st_size


@contextmanager
def no_space_named(where: str) -> Iterator[None]:
    """Turn the system's "no space left" into NoSpace, which names the place."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left on {where}: free some and run the same command again") from error
        raise
