"""Objects and tables on a real S3 server that answers with errors, breaks connections, hangs or is away."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.errors import CorruptObject, NoSpace, RootError, StorageError
from sayso.patience import Patience, ride_out
from sayso.root import Root
from sayso.rows import Video
from sayso.s3 import PlainGetFailed, PlainGets
from sayso.storage import Storage
from sayso.tables import Table
from tests.conftest import S3
from tests.faults import Fault, FaultyProxy, Rule
from tests.seaweed import SeaweedFS

PATIENT = Patience(seconds=30, first_wait=0.05, longest_wait=1.0, connect_timeout=2, read_timeout=2)
HASTY = replace(PATIENT, seconds=0.5)
FAULTS = ("slow_down", "error", "delay", "drop_request", "drop_answer", "lose_answer")
LARGE = 20 << 20


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3.server.endpoint, delay=0.1) as running:
        yield running


@pytest.fixture
def through(s3: S3, proxy: FaultyProxy) -> Callable[..., Storage]:
    """Makes a storage of a fresh root behind the proxy."""

    def make(patience: Patience = PATIENT) -> Storage:
        return Storage(s3.url("storage"), {"endpoint_url": proxy.endpoint}, patience)

    return make


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that is uploaded in three parts."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(LARGE))
    return path


def leftovers(s3: S3, storage: Storage) -> list[str]:
    """The keys of uploads in parts under a storage that were neither completed nor aborted."""
    prefix = storage.base.partition("/")[2]
    keys = [str(upload["Key"]) for upload in s3.server.client().list_multipart_uploads("sayso")]
    return [key for key in keys if key.lstrip("/").startswith(prefix)]


def test_what_is_put_is_what_is_read(s3: S3, large: Path) -> None:
    storage = Storage(s3.url("storage"))
    small = storage.put_bytes(b"0123456789", "a/b.bin")
    stored = storage.put_file(large, "a/large")
    assert storage.list("a") == ["a/b.bin", "a/large"]
    assert storage.size("a/large") == LARGE
    storage.check(small)
    storage.check(stored)
    assert storage.read("a/b.bin", 2, 5) == b"234"
    with storage.local("a/large") as path:
        assert path.read_bytes() == large.read_bytes()
    with storage.open("a/large") as file:
        file.seek(LARGE - 5)
        assert file.read() == large.read_bytes()[-5:]
    storage.put_bytes(b"012345678X", "a/b.bin")
    with pytest.raises(CorruptObject, match=r"a/b\.bin: SHA-256"):
        storage.check(small)
    storage.remove("a/b.bin")
    storage.remove("a/b.bin")
    assert not storage.exists("a/b.bin")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.bin")
    with pytest.raises(FileNotFoundError), storage.local("a/b.bin"):
        pass
    assert pickle.loads(pickle.dumps(storage)).read("a/large", 0, 9) == large.read_bytes()[:9]


@pytest.mark.parametrize("fault", FAULTS)
def test_objects_are_right_however_often_requests_fail(
    fault: Fault, proxy: FaultyProxy, through: Callable[..., Storage], s3: S3, large: Path
) -> None:
    storage = through()
    proxy.script(Rule(fault, share=0.3), seed=7)
    stored = [storage.put_bytes(bytes([number]) * 1000, f"small/{number}") for number in range(6)]
    stored.append(storage.put_file(large, "large"))
    for item in stored:
        storage.check(item)
    assert len(storage.list("small")) == 6
    storage.remove("small/0")
    assert not storage.exists("small/0")
    with storage.local("large") as path:
        assert path.read_bytes() == large.read_bytes()
    assert proxy.made[fault] >= 5, proxy.made
    proxy.script()
    assert leftovers(s3, storage) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_tables_are_right_however_often_requests_fail(fault: Fault, proxy: FaultyProxy, s3: S3) -> None:
    table = Root(s3.url("tables"), {"endpoint_url": proxy.endpoint}, PATIENT).create().table(Video)
    proxy.script(Rule(fault, share=0.3), seed=3)
    for number in range(5):
        ride_out(partial(append, table, number), table.url, PATIENT)
    read = ride_out(lambda: sorted(video.video_id for video in table.rows()), table.url, PATIENT)
    assert read == [f"v{number}" for number in range(5)]
    assert proxy.made[fault] >= 5, proxy.made


def append(table: Table[Video], number: int) -> None:
    """Append one row, if it is not there."""
    if f"v{number}" not in table.keys().to_pylist():
        marks = {MADE_BY: "test", MADE_FROM: str(number)}
        table.writer("test").append([{**Video(video_id=f"v{number}", url="u").model_dump(), **marks}])


def test_a_table_rides_out_a_server_that_is_away_for_a_while(proxy: FaultyProxy, s3: S3) -> None:
    table = Root(s3.url("tables"), {"endpoint_url": proxy.endpoint}, PATIENT).create().table(Video)
    append(table, 0)
    proxy.away(seconds=5)
    began = time.monotonic()
    assert table.read(["video_id"]).num_rows == 1
    assert time.monotonic() - began > 4


def test_a_table_whose_server_stays_away_ends_in_one_clear_error(proxy: FaultyProxy, s3: S3) -> None:
    table = Root(s3.url("tables"), {"endpoint_url": proxy.endpoint}, HASTY).create().table(Video)
    append(table, 0)
    proxy.away()
    calls: list[Callable[[], object]] = [
        partial(DeltaTable, table.url, storage_options=table.storage_options),
        lambda: append(table, 1),
        table.exists,
        table.version,
        table.read,
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"s3://sayso/tables-\d+/tables/videos: [^\n\x1b]*same command goes on"):
            ride_out(call, table.url, HASTY)
        assert time.monotonic() - began < 15


def test_what_a_table_says_of_itself_is_passed_on(s3: S3, tmp_path: Path) -> None:
    for root in (Root(s3.url("tables")), Root(str(tmp_path))):
        table = root.table(Video)
        with pytest.raises(TableNotFoundError):
            ride_out(partial(DeltaTable, table.url, storage_options=table.storage_options), table.url)


def test_a_server_that_is_away_for_a_while_is_waited_for(proxy: FaultyProxy, through: Callable[..., Storage]) -> None:
    storage = through()
    storage.put_bytes(b"before", "a")
    proxy.away(seconds=5)
    began = time.monotonic()
    assert storage.read("a") == b"before"
    assert time.monotonic() - began > 4


def test_a_server_that_stays_away_ends_in_one_clear_error(
    proxy: FaultyProxy, through: Callable[..., Storage], large: Path
) -> None:
    storage = through(HASTY)
    stored = storage.put_bytes(b"before", "a/x")
    proxy.away()
    calls: list[Callable[[], object]] = [
        lambda: storage.read("a/x"),
        lambda: storage.exists("a/x"),
        lambda: storage.size("a/x"),
        lambda: storage.list("a"),
        lambda: storage.remove("a/x"),
        lambda: storage.check(stored),
        lambda: storage.put_bytes(b"x", "a/y"),
        lambda: storage.put_file(large, "a/large"),
        lambda: storage.open("a/x").read(),
        lambda: storage.local("a/x").__enter__(),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"s3://sayso/storage-\d+/.*the same command goes on from here"):
            call()
        assert time.monotonic() - began < 15
    proxy.back()
    assert storage.read("a/x") == b"before"
    assert storage.list("a") == ["a/x"]


def test_a_server_that_hangs_is_noticed(tmp_path: Path, large: Path) -> None:
    with SeaweedFS(tmp_path / "server") as server:
        url, options = f"{server.bucket('sayso')}/root", _keys(server)
        storage = Storage(url, options, replace(HASTY, read_timeout=0.5))
        storage.put_bytes(b"before", "a")
        server.freeze()
        for call in (
            lambda: storage.read("a"),
            lambda: storage.put_bytes(b"x", "b"),
            lambda: storage.put_file(large, "c"),
        ):
            began = time.monotonic()
            with pytest.raises(StorageError):
                call()
            assert time.monotonic() - began < 30
        server.thaw()
        assert storage.read("a") == b"before"


def _killed_and_started(server: SeaweedFS) -> None:
    server.kill()
    server.start()


def _keys(server: SeaweedFS) -> dict[str, str]:
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "endpoint_url": "AWS_ENDPOINT_URL"}
    return {name: server.environment[variable] for name, variable in names.items()}


def test_a_killed_server_that_comes_back_is_waited_for(tmp_path: Path, large: Path) -> None:
    server = SeaweedFS(tmp_path / "server").start()
    try:
        storage = Storage(f"{server.bucket('sayso')}/root", _keys(server), PATIENT)
        stored = [storage.put_bytes(bytes(number), f"a/{number}") for number in range(20)]
        again = threading.Timer(0.2, _killed_and_started, [server])
        again.start()
        stored += [storage.put_file(large, f"b/{number}") for number in range(8)]
        again.join()
        for item in stored:
            storage.check(item)
    finally:
        server.kill()


@pytest.mark.parametrize("fault", ["drop_request", "lose_answer"])
@pytest.mark.parametrize("size", [12 << 20, LARGE])
def test_a_broken_upload_leaves_nothing_or_all(
    fault: Fault, size: int, proxy: FaultyProxy, through: Callable[..., Storage], s3: S3, tmp_path: Path
) -> None:
    storage = through(HASTY)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    proxy.script(Rule(fault, method="PUT", least_bytes=1 << 20))
    with pytest.raises(StorageError):
        storage.put_file(source, "a")
    assert proxy.made[fault] >= 2
    proxy.script()
    if storage.exists("a"):
        assert storage.read("a") == source.read_bytes()
    assert leftovers(s3, storage) == []
    storage.check(storage.put_file(source, "a"))


def test_the_lost_answer_to_the_end_of_an_upload_is_no_failure(
    proxy: FaultyProxy, through: Callable[..., Storage], s3: S3, large: Path
) -> None:
    storage = through()
    proxy.script(Rule("lose_answer", method="POST", target="uploadId=", times=4))
    storage.check(storage.put_file(large, "a"))
    assert proxy.made["lose_answer"] == 4
    assert leftovers(s3, storage) == []


def test_a_full_store_is_named_at_once(proxy: FaultyProxy, through: Callable[..., Storage], large: Path) -> None:
    storage = through()
    proxy.script(Rule("full", method="PUT"))
    with pytest.raises(NoSpace, match="no space left on s3://sayso/storage"):
        storage.put_bytes(b"x", "a")
    with pytest.raises(NoSpace, match="no space left on s3://sayso/storage"):
        storage.put_file(large, "b")
    assert proxy.made["full"] <= 4, "asked again and again"


def test_what_the_user_can_mend_is_said_with_the_fix(s3: S3) -> None:
    url = s3.url("root")
    Root(url).create()
    wrong = {"secret": "wrong", "key": "sayso", "endpoint_url": s3.server.endpoint}
    for root in (Root(url, wrong), Root(url, {**wrong, "key": "nobody"})):
        with pytest.raises(RootError, match=r"access denied.*give keys that may read and write there"):
            root.open()
        with pytest.raises(RootError, match=r"access denied.*give keys that may read and write there"):
            root.create()
    with pytest.raises(RootError, match=r"no such bucket; make it, or mend the URL"):
        Root("s3://nowhere-at-all/root").open()
    with pytest.raises(RootError, match=r"not a URL of an object store; give s3://bucket/prefix"):
        Root("s3://No_Bucket!/root").open()
    with pytest.raises(RootError, match="not a sayso root"):
        Root(s3.url("empty")).open()


def test_whole_objects_come_by_one_plain_request(s3: S3, large: Path, tmp_path: Path) -> None:
    storage = Storage(s3.url("plain"))
    storage.put_file(large, "a/object")
    plain = PlainGets(storage.fs, storage.patience)
    whole = large.read_bytes()
    assert b"".join(map(bytes, plain.whole(storage.path("a/object")))) == whole
    for _ in range(2):  # over one connection, signed once
        assert plain.part(storage.path("a/object"), 5, 1005) == whole[5:1005]
    assert plain.part(storage.path("a/object"), LARGE - 5, LARGE + 5) == whole[-5:]
    with pytest.raises(PlainGetFailed, match="404") as missing:
        next(plain.whole(storage.path("nothing")))
    with pytest.raises(PlainGetFailed, match="416") as beyond:
        plain.part(storage.path("a/object"), LARGE, LARGE + 5)
    assert missing.value.known and beyond.value.known
    with pytest.raises(FileNotFoundError), storage.local("nothing"):
        pass
    going = iter([True, False])
    with (tmp_path / "part").open("wb") as file:
        assert not storage.copy_whole("a/object", file, lambda: next(going))
        assert 0 < file.tell() < LARGE


@pytest.mark.parametrize("fault", ["slow_down", "drop_answer"])
def test_what_no_plain_request_gets_is_read_through_s3fs(
    fault: Fault, through: Callable[..., Storage], proxy: FaultyProxy, large: Path
) -> None:
    storage = through()
    storage.put_file(large, "object")
    proxy.script(Rule(fault, target="Signature="))  # only of signed URLs
    for _ in range(4):
        with storage.local("object") as path:
            assert path.read_bytes() == large.read_bytes()
        assert storage.read("object", 10, 20) == large.read_bytes()[10:20]
    assert storage._plain_failures == 3, "after three no more are tried"


def test_parts_of_what_is_not_there_do_not_end_plain_requests(s3: S3, large: Path) -> None:
    storage = Storage(s3.url("plain-parts"))
    storage.put_file(large, "object")
    for _ in range(5):
        with pytest.raises(FileNotFoundError):
            storage.read("nothing", 0, 5)
    assert storage._plain_failures == 0
    assert storage.read("object", LARGE - 5, LARGE + 5) == large.read_bytes()[-5:]
