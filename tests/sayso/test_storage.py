"""Objects appear whole or not at all, under keys that never climb."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from sayso.errors import CorruptObject, RootError
from sayso.rows import StoredObject
from sayso.storage import PARTIAL, Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "root") if request.param == "local" else f"memory://{tmp_path.name}")


def test_what_is_put_is_what_is_read(storage: Storage) -> None:
    stored = storage.put_bytes(b"0123456789", "a/b.bin")
    assert stored == StoredObject(key="a/b.bin", sha256=hashlib.sha256(b"0123456789").hexdigest(), bytes=10)
    assert storage.read("a/b.bin") == b"0123456789"
    assert storage.read("a/b.bin", 2, 5) == b"234"
    assert (storage.exists("a/b.bin"), storage.exists("a/c.bin"), storage.size("a/b.bin")) == (True, False, 10)
    with storage.local("a/b.bin") as path:
        assert path.read_bytes() == b"0123456789"
    assert storage.list("a") == ["a/b.bin"]
    storage.put_bytes(b"again", "a/b.bin")
    assert storage.read("a/b.bin") == b"again"
    storage.remove("a/b.bin")
    storage.remove("a/b.bin")
    assert storage.list("a") == []


def test_damage_is_named(storage: Storage) -> None:
    stored = storage.put_bytes(b"0123456789", "x")
    storage.check(stored)
    storage.put_bytes(b"012345678X", "x")
    with pytest.raises(CorruptObject, match="x: SHA-256"):
        storage.check(stored)
    storage.put_bytes(b"01234", "x")
    with pytest.raises(CorruptObject, match="x: 5 bytes, its row says 10"):
        storage.check(stored)
    storage.remove("x")
    with pytest.raises(CorruptObject, match="x: missing"):
        storage.check(stored)


@pytest.mark.parametrize("key", ["", "../x", "a/../../x", "/x", "a//b", "."])
def test_keys_never_climb(storage: Storage, key: str) -> None:
    with pytest.raises(AssertionError, match="not a key"):
        storage.path(key)


def test_a_half_written_object_is_no_object(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.put_bytes(b"x", "a/whole")
    (tmp_path / "a" / f"{PARTIAL}1234").write_bytes(b"half")
    assert storage.list("a") == ["a/whole"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "root"))
    with pytest.raises(FileNotFoundError):
        storage.put_file(tmp_path / "nowhere", "a/x")
    (tmp_path / "root" / "b").mkdir(parents=True)
    (tmp_path / "root" / "b" / "x").mkdir()  # in the way of the move
    with pytest.raises(IsADirectoryError):
        storage.put_bytes(b"x", "b/x")
    assert [path.name for path in (tmp_path / "root" / "b").iterdir()] == ["x"]


def test_a_missing_object_is_missing_everywhere(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.size("nothing")
    with pytest.raises(FileNotFoundError), storage.local("nothing"):
        pass


def test_storage_travels_to_workers(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.put_bytes(b"x", "a")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"x"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/root", "s4://bucket/root: no file system for this URL .*s4"),
        ("gs://bucket/root", "gs://bucket/root: .* install gcsfs"),
    ],
)
def test_a_url_without_a_file_system_is_named(url: str, message: str) -> None:
    with pytest.raises(RootError, match=message):
        Storage(url)
