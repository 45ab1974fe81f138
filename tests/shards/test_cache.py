"""The cache of whole shards: within its limit at every moment, whoever uses it and however they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from sayso.errors import NoSpace
from shards.cache import Cache
from tests.conftest import REPOSITORY

SIZE = 10_000


def content(name: str) -> bytes:
    return name.encode().ljust(SIZE, b".")


def put(cache: Cache, name: str) -> bool:
    return cache.fetch(name, SIZE, lambda file: file.write(content(name)) > 0)


def get(cache: Cache, name: str) -> bytes | None:
    descriptor = cache.open(name)
    if descriptor is None:
        return None
    try:
        return os.pread(descriptor, 2 * SIZE, 0)
    finally:
        os.close(descriptor)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def test_the_least_recently_used_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    for name in "abc":
        assert put(cache, name)
        time.sleep(0.01)
    assert get(cache, "a") == content("a")
    assert put(cache, "d")
    assert names(tmp_path) == ["a", "c", "d"]
    assert get(cache, "b") is None


def test_who_reads_what_goes_reads_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)
    put(cache, "a")
    descriptor = cache.open("a")
    assert descriptor is not None
    put(cache, "b")
    assert names(tmp_path) == ["b"]
    assert os.pread(descriptor, SIZE, 0) == content("a")
    os.close(descriptor)


def test_what_does_not_come_whole_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    assert not cache.fetch("gives up", SIZE, lambda file: False)
    assert not cache.fetch("short", SIZE, lambda file: file.write(b"half") > 0)
    assert not cache.fetch("too large", 4 * SIZE, lambda file: True)
    with pytest.raises(ConnectionError):
        cache.fetch("breaks off", SIZE, broken_off)
    with pytest.raises(NoSpace, match=str(tmp_path)):
        cache.fetch("full", SIZE, disk_full)
    assert names(tmp_path) == []


def broken_off(file: BinaryIO) -> bool:
    file.write(b"half")
    raise ConnectionError


def disk_full(file: BinaryIO) -> bool:
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    return True


def test_nothing_goes_for_what_finds_no_room_beside_what_is_fetched(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    put(cache, "a")

    def meanwhile(file: BinaryIO) -> bool:
        assert not cache.fetch("large", 2 * SIZE, lambda file: True)
        assert not put(cache, "slow"), "somebody is fetching it"
        assert names(tmp_path) == ["a", "slow.partial"]
        return file.write(content("slow")) > 0

    assert cache.fetch("slow", SIZE, meanwhile)
    assert names(tmp_path) == ["a", "slow"]


def use(folder: str, seed: int, wrong: multiprocessing.Queue[str]) -> None:
    """Fetch and read objects in an order of one's own, for a while."""
    cache, limit = Cache(Path(folder), 6 * SIZE), 6 * SIZE
    for step in range(300):
        name = f"object-{(step * (2 * seed + 1)) % 17}"
        put(cache, name)
        found = get(cache, name)
        if found not in (None, content(name)):
            wrong.put(f"{name} holds something else")
        with cache._locked():  # else files come and go while they are counted
            taken = sum(path.stat().st_size for path in Path(folder).iterdir())
        if taken > limit:
            wrong.put(f"{taken} bytes")


def test_processes_share_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    wrong: multiprocessing.Queue[str] = context.Queue()
    users = [context.Process(target=use, args=(str(tmp_path), seed, wrong)) for seed in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert [user.exitcode for user in users] == [0] * 4
    assert wrong.empty(), wrong.get()
    assert 1 <= len(names(tmp_path)) <= 6
    assert all(get(Cache(tmp_path, 6 * SIZE), name) == content(name) for name in names(tmp_path))


_FETCHING = """
import sys, time
from pathlib import Path
from shards.cache import Cache

def write(file):
    file.write(b"half")
    file.flush()
    print("fetching", flush=True)
    time.sleep(60)
    return True

Cache(Path(sys.argv[1]), 20_000).fetch("a", 10_000, write)
"""


@pytest.mark.parametrize("then", ["swept", "taken over"])
def test_what_a_killed_process_leaves_is_swept_or_taken_over(tmp_path: Path, then: str) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    with subprocess.Popen(
        [sys.executable, "-c", _FETCHING, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"fetching\n"
        assert not put(cache, "a")
        Cache(tmp_path, 2 * SIZE)
        assert names(tmp_path) == ["a.partial"], "one that is alive is left alone"
        process.send_signal(signal.SIGKILL)
    if then == "swept":
        Cache(tmp_path, 2 * SIZE)
        assert names(tmp_path) == []
    assert put(cache, "a")
    assert get(cache, "a") == content("a")
    assert names(tmp_path) == ["a"]


FETCH = """
import sys
from pathlib import Path
from shards.cache import Cache
print(Cache(Path(sys.argv[1]), 1000).fetch("a", 1, lambda file: file.write(b"x") == 1))
"""


def fork_a_sleeper() -> int:
    """What a loader does while threads of this process are at work: a process that has all of our files open."""
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    return child


def test_a_process_forked_meanwhile_holds_no_lock(tmp_path: Path) -> None:
    cache, children = Cache(tmp_path, 10 * SIZE), []

    def give_up(file: BinaryIO) -> bool:
        children.append(fork_a_sleeper())
        return False

    assert not cache.fetch("a", SIZE, give_up)
    with cache._locked():
        children.append(fork_a_sleeper())
    try:
        another = subprocess.run(
            [sys.executable, "-c", FETCH, str(tmp_path)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
            check=True,
        )
        assert another.stdout.split() == ["True"]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
