"""The whole way of the data on an S3 root ends with what it ends with in a folder."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ingest.guard import PrivateAddress, public_only
from sayso.root import Root
from tests.conftest import S3, SAYSO
from tests.contents import content_hash
from tests.e2e.conftest import Command, environment


@pytest.fixture(scope="module")
def on_s3(s3: S3, sayso: Command, small_videos: Path) -> str:
    """The URL of a root on S3 into which the small world was ingested in one go."""
    url = s3.url("root")
    ran = sayso("run", "--videos", small_videos, "--root", url)
    assert ran.code == 0, ran.err
    return url


def test_a_root_on_s3_holds_what_a_folder_holds(on_s3: str, undisturbed: Path) -> None:
    found = content_hash(Root(on_s3).open())
    assert found == content_hash(Root(str(undisturbed)).open())
    assert len(found) > 6, "no shards"


def test_every_object_on_s3_is_whole(on_s3: str, sayso: Command) -> None:
    ran = sayso("verify", "--root", on_s3)
    assert ran.code == 0, ran.out
    assert "all whole" in ran.out
    assert "belong to no row" not in ran.out


def test_a_second_run_on_s3_finds_nothing_to_do(on_s3: str, sayso: Command, small_videos: Path) -> None:
    before = content_hash(Root(on_s3).open())
    ran = sayso("run", "--videos", small_videos, "--root", on_s3)
    assert ran.code == 0, ran.err
    assert content_hash(Root(on_s3).open()) == before


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "give keys that may read and write there"),
    ],
    ids=["no-keys", "wrong-keys"],
)
@pytest.mark.parametrize("command", ["status", "run"])
def test_keys_that_do_not_open_the_store_are_named_with_the_fix(
    command: str, wrong: dict[str, str], fix: str, s3: S3, small_videos: Path, tmp_path: Path
) -> None:
    variables = {**environment(), **wrong, "HOME": str(tmp_path)}
    arguments = [command, "--root", s3.url("closed"), *(["--videos", str(small_videos)] if command == "run" else [])]
    ran = subprocess.run(
        [SAYSO, *arguments], env={name: value for name, value in variables.items() if value},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith("sayso: s3://sayso/closed-")
    assert fix in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr


def test_the_guard_keeps_media_away_from_the_store_but_not_objects(s3: S3) -> None:
    root = Root(s3.url("guarded"))
    with public_only():
        root.create()
        stored = root.storage.put_bytes(os.urandom(1000), "media/a")
        root.storage.check(stored)
        with pytest.raises(PrivateAddress):
            socket.create_connection(("127.0.0.1", urlsplit(s3.server.endpoint).port or 80))
