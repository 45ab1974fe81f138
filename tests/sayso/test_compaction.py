"""Compaction: the same rows in fewer files, whoever works on the table, and whenever it is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

import sayso.compaction
import sayso.writer
from sayso.compaction import compact
from sayso.errors import CorruptObject
from sayso.root import Root
from sayso.rows import Span, Transcript, Video
from sayso.tables import Table

REPOSITORY = Path(__file__).resolve().parents[2]
MB = 1 << 20
DAY = 24 * 3600.0


def records(*names: str) -> list[dict[str, Any]]:
    return [{**Video(video_id=name, url="u").model_dump(), "made_by": "s", "made_from": name} for name in names]


def ids(table: Table[Video], version: int | None = None) -> list[str]:
    return sorted(table.read(["video_id"], version)["video_id"].to_pylist())


def files(table: Table[Video]) -> list[str]:
    return sorted(DeltaTable(table.url).file_uris())


@pytest.fixture
def table(root: Root) -> Table[Video]:
    return root.table(Video)


def test_a_table_of_many_commits_has_few_files(table: Table[Video]) -> None:
    writer = table.writer("s")
    names = [f"v{number:03}" for number in range(205)]
    for name in names:
        writer.append(records(name))
    assert ids(table) == names
    assert sorted(table.made_from("s").to_pylist()) == names
    assert len(files(table)) < 20
    log = Path(table.url) / "_delta_log"
    assert (log / "_last_checkpoint").exists()
    assert ids(table, version=100) == names[:100]  # the first version made the table


def test_plain_appends_compact_too(table: Table[Video], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sayso.compaction, "COMPACT_EVERY", 10)
    for number in range(21):
        table.append(records(f"v{number:02}"))
    assert len(files(table)) < 10
    assert ids(table) == [f"v{number:02}" for number in range(21)]


def test_nested_rows_and_columns_that_came_later_stay_as_they_were(root: Root) -> None:
    table = root.table(Transcript)
    rows = [
        Transcript(
            video_id=f"v{n}", source="s", language="en", speech_seconds=n, spans=[Span(start=0, end=n, text="é")]
        )
        for n in range(5)
    ]
    older = sayso.arrow.schema(Transcript)
    DeltaTable.create(table.url, older.remove(older.get_field_index("language_confidence")))
    for row in rows:
        table.append([{**row.model_dump(), "made_by": "s", "made_from": row.video_id}])
    before = DeltaTable(table.url).schema()
    compact(DeltaTable(table.url), MB)
    assert sorted(table.rows(), key=lambda row: row.video_id) == rows
    assert DeltaTable(table.url).schema() == before
    assert len(DeltaTable(table.url).file_uris()) == 1


def test_large_files_are_left_alone(table: Table[Video]) -> None:
    table.append(records(*(f"large{number}" for number in range(10_000))))
    large = files(table)
    size = Path(large[0]).stat().st_size
    for number in range(6):
        table.append(records(f"small{number}"))
    compact(DeltaTable(table.url), size - 1)
    assert set(large) < set(files(table))
    assert len(files(table)) == 2
    compact(DeltaTable(table.url), MB)
    assert len(files(table)) == 1
    version = table.version()
    compact(DeltaTable(table.url), MB)
    assert table.version() == version
    assert len(ids(table)) == 10_006


def test_joined_files_are_filled_up_to_the_size_asked_for(table: Table[Video]) -> None:
    for number in range(20):
        table.append(records(f"v{number:02}"))
    size = max(Path(file).stat().st_size for file in files(table))
    compact(DeltaTable(table.url), 4 * size)
    assert len(files(table)) == 5
    assert len(ids(table)) == 20


def test_of_two_compactions_at_once_one_has_its_way(table: Table[Video]) -> None:
    for number in range(10):
        table.append(records(f"v{number}"))
    first, second = DeltaTable(table.url), DeltaTable(table.url)
    table.append(records("v-later"))
    compact(first, MB)
    with pytest.raises(CommitFailedError):
        compact(second, MB)
    sayso.compaction.compact_if_due(lambda: second, 0, 100)
    assert len(ids(table)) == 11


def test_a_broken_file_is_not_made_to_look_whole(table: Table[Video]) -> None:
    for number in range(4):
        table.append(records(f"v{number}"))
    path = next(Path(table.url).glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[-10] ^= 1  # in the footer's length or behind it
    path.write_bytes(bytes(data))
    before = files(table)
    with pytest.raises(CorruptObject, match="not the bytes that its name says"):
        compact(DeltaTable(table.url), MB)
    sayso.compaction.compact_if_due(lambda: DeltaTable(table.url), 0, 100)
    assert files(table) == before


_APPENDER = """
    import sys
    import sayso.compaction
    from sayso.root import Root
    from sayso.rows import Video
    sayso.compaction.COMPACT_EVERY = 5
    url, name = sys.argv[1:]
    marks = {"made_by": name, "made_from": ""}
    writer = Root(url).table(Video).writer(name)
    for number in range(40):
        writer.append([{**Video(video_id=f"{name}{number:02}", url="u").model_dump(), **marks}])
"""


def test_processes_that_append_and_compact_at_once_lose_and_double_nothing(root: Root, table: Table[Video]) -> None:
    command = [sys.executable, "-c", textwrap.dedent(_APPENDER), root.url]
    appenders = [subprocess.Popen([*command, name], cwd=REPOSITORY) for name in "abc"]
    assert [appender.wait(timeout=120) for appender in appenders] == [0, 0, 0]
    assert ids(table) == sorted(f"{name}{number:02}" for name in "abc" for number in range(40))


def test_files_out_of_use_are_kept_for_a_day(table: Table[Video], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sayso.compaction, "COMPACT_EVERY", 2)
    folder = Path(table.url)
    writer = table.writer("s")
    writer.append(records("v00"))
    unnamed_old, unnamed_new = folder / "part-old.parquet", folder / "part-new.parquet"
    for file in (unnamed_old, unnamed_new):
        file.write_bytes(b"of a writer that died")
    os.utime(unnamed_old, (time.time() - 1.1 * DAY,) * 2)
    for number in range(1, 22):
        writer.append(records(f"v{number:02}"))
    assert not unnamed_old.exists()
    assert unnamed_new.exists()
    for version in range(1, 15):  # compaction has versions of its own
        assert ids(table, version) == ids(table)[: len(ids(table, version))]


def test_files_out_of_use_are_removed_in_time(table: Table[Video], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sayso.writer, "PROPERTIES", {"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    for number in range(12):
        table.append(records(f"v{number:02}"))
    compact(DeltaTable(table.url), MB)
    assert len(list(Path(table.url).glob("*.parquet"))) == 13
    time.sleep(0.01)
    compact(DeltaTable(table.url), MB, vacuum=True)
    assert len(list(Path(table.url).glob("*.parquet"))) == 1
    assert ids(table) == [f"v{number:02}" for number in range(12)]


# Forks before Delta Lake's threads are there, so that each victim costs no start of Python.
_VICTIMS = """
    import os, signal, sys, time
    from deltalake import DeltaTable
    from sayso.compaction import compact
    url, delays = sys.argv[1], [float(each) for each in sys.argv[2:]]
    for number, delay in enumerate(delays):
        reader, writer = os.pipe()
        victim = os.fork()
        if not victim:
            table = DeltaTable(f"{url}{number}")
            os.write(writer, b"1")
            compact(table, 1 << 20, vacuum=True)
            os._exit(0)
        os.read(reader, 1)
        time.sleep(delay)
        os.kill(victim, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]))
"""


def test_killed_at_any_moment_of_a_compaction_a_table_has_the_same_rows(root: Root, tmp_path: Path) -> None:
    table = root.table(Video)
    names = [f"v{number:05}" for number in range(120 * 50)]
    for start in range(0, len(names), 100):
        table.append(records(*names[start : start + 100]))
    whole = tmp_path / "whole"
    shutil.copytree(table.url, whole)
    began = time.monotonic()
    compact(DeltaTable(str(whole)), MB, vacuum=True)
    took = time.monotonic() - began
    delays = [took * part / 9 for part in range(14)]
    for number in range(len(delays)):
        shutil.copytree(table.url, tmp_path / f"t{number}")
    command = [sys.executable, "-c", textwrap.dedent(_VICTIMS), str(tmp_path / "t"), *map(str, delays)]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    assert ended.stdout.split().count("-9") >= 5
    joined = []
    for number in range(len(delays)):
        left = Table(Video, str(tmp_path / f"t{number}"))
        assert ids(left) == names
        joined.append(len(files(left)) == 1)
        left.writer("s").append(records("w"))
        compact(DeltaTable(left.url), MB, vacuum=True)
        assert ids(left) == [*names, "w"]
    assert not joined[0]
