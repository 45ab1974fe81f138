"""Writers: every append once, one writer a name, whatever fails on the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

import sayso.compaction
import sayso.writer
from sayso.errors import NoSpace, RootBusy, RootError, StorageError
from sayso.root import Root
from sayso.rows import Video
from sayso.tables import Table

REPOSITORY = Path(__file__).resolve().parents[2]
COMMIT = DeltaTable.create_write_transaction


def records(*names: str, made_by: str = "stage") -> list[dict[str, Any]]:
    return [{**Video(video_id=name, url="u").model_dump(), "made_by": made_by, "made_from": name} for name in names]


def ids(table: Table[Video]) -> list[str]:
    return sorted(table.read(["video_id"])["video_id"].to_pylist())


@pytest.fixture
def table(root: Root) -> Table[Video]:
    return root.table(Video)


def test_a_writer_makes_nothing_before_its_first_rows(table: Table[Video]) -> None:
    writer = table.writer("stage")
    writer.append([])
    assert not table.exists()
    assert (writer.commits, writer.seconds) == (0, 0.0)
    writer.append(records("a", "b"))
    writer.append(records("c"))
    assert ids(table) == ["a", "b", "c"]
    assert writer.commits == 2
    assert writer.seconds > 0
    version = table.version()
    writer.append([])
    assert table.version() == version


def test_a_writer_goes_on_where_the_last_of_its_name_ended(table: Table[Video]) -> None:
    for name in ("a", "b"):
        table.writer("stage").append(records(name))
    assert ids(table) == ["a", "b"]


@pytest.mark.parametrize("before", [[], ["0"]], ids=["new table", "table that is there"])
def test_the_second_writer_of_a_name_is_refused(table: Table[Video], before: list[str]) -> None:
    table.append(records(*before))
    first, second = table.writer("stage"), table.writer("stage")
    second.append(records("a"))
    for _ in range(2):
        with pytest.raises(RootBusy, match=r"another run appends rows of `stage` to this root"):
            first.append(records("a"))
    second.append(records("b"))
    assert ids(table) == [*before, "a", "b"]
    assert first.commits == 0


def test_other_names_plain_appends_and_compaction_pass_by(table: Table[Video]) -> None:
    fetch, other = table.writer("fetch"), table.writer("other")
    expected = []
    for number in range(12):
        fetch.append(records(f"fetch{number:02}"))
        other.append(records(f"other{number:02}"))
        table.append(records(f"plain{number:02}"))
        sayso.compaction.compact(DeltaTable(table.url), 1 << 20, vacuum=True)
        expected += [f"fetch{number:02}", f"other{number:02}", f"plain{number:02}"]
    assert ids(table) == sorted(expected)


def test_compaction_on_the_way_hides_no_other_writer(table: Table[Video], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sayso.compaction, "COMPACT_EVERY", 2)
    first, second = table.writer("stage"), table.writer("stage")
    for number in range(5):
        second.append(records(f"second{number}"))
    with pytest.raises(RootBusy):
        first.append(records("first"))
    assert len(ids(table)) == 5


def test_a_writer_that_stood_still_goes_on_after_the_log_was_cut(
    table: Table[Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sayso.writer, "PROPERTIES", {"delta.logRetentionDuration": "interval 0 seconds"})
    monkeypatch.setattr(sayso.compaction, "COMPACT_EVERY", 5)
    table.append(records("a"))
    still, refused, other = table.writer("still"), table.writer("other"), table.writer("other")
    for number in range(25):
        other.append(records(f"b{number:02}"))
    first_entry = Path(table.url) / "_delta_log" / f"{2:020}.json"
    assert not first_entry.exists()
    still.append(records("c"))
    with pytest.raises(RootBusy):
        refused.append(records("d"))
    assert ids(table) == ["a", *(f"b{number:02}" for number in range(25)), "c"]


_RACER = """
    import sys
    from sayso.errors import RootBusy
    from sayso.rows import Video
    from sayso.root import Root
    url, name, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    marks = {"made_by": name, "made_from": ""}
    writer = Root(url).table(Video).writer(name)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        for number in range(rows):
            writer.append([{**Video(video_id=f"{sys.argv[4]}-{number}", url="u").model_dump(), **marks}])
    except RootBusy:
        print("busy")
"""


def race(url: str, names: Sequence[str], rows: int) -> list[str]:
    """Let a process a name append to the same new table at once; who was refused."""
    command = [sys.executable, "-c", textwrap.dedent(_RACER), url]
    racers = [
        subprocess.Popen(
            [*command, name, str(rows), str(place)], cwd=REPOSITORY, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for place, name in enumerate(names)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * len(racers)
    return said


def test_processes_that_make_a_table_at_once_all_get_their_rows_in(table: Table[Video]) -> None:
    assert race(table.url.removesuffix("/tables/videos"), ["a", "b", "c"], 5) == ["", "", ""]
    assert ids(table) == [f"{place}-{number}" for place in range(3) for number in range(5)]


def test_of_processes_of_one_name_that_make_a_table_at_once_one_goes_on(table: Table[Video]) -> None:
    said = race(table.url.removesuffix("/tables/videos"), ["a", "a", "a"], 5)
    assert sorted(said) == ["", "busy", "busy"]
    assert ids(table) == [f"{said.index('')}-{number}" for number in range(5)]


def answers(*lost: Callable[[], None] | None) -> Callable[..., None]:
    """A commit whose answer is lost (after it was made) or that is not made at all (None), for the first calls."""
    todo = list(lost)

    def commit(*args: Any, **options: Any) -> None:
        if not todo:
            return COMMIT(*args, **options)
        fault = todo.pop(0)
        if fault is not None:
            COMMIT(*args, **options)
            fault()
        raise OSError("connection reset by peer")

    return commit


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without rest."""
    monkeypatch.setattr(sayso.writer, "_PAUSE", 0.0)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("named", [True, False], ids=["named", "plain"])
def test_a_commit_whose_answer_is_lost_is_made_once(
    table: Table[Video], monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    append = table.writer("stage").append if named else table.append
    append(records("a"))
    others = iter("xyz")

    def another() -> None:
        table.append(records(next(others)))

    monkeypatch.setattr(DeltaTable, "create_write_transaction", answers(lambda: None))
    append(records("b"))
    # Before the writer looks again, others have committed; or the first tries never came through.
    monkeypatch.setattr(DeltaTable, "create_write_transaction", answers(None, None, another))
    append(records("c"))
    append(records("d"))
    assert ids(table) == ["a", "b", "c", "d", "x"]


@pytest.mark.usefixtures("hasty")
def test_after_a_lost_answer_another_run_is_still_told_from_oneself(
    table: Table[Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, rival = table.writer("stage"), table.writer("stage")
    rival.append(records("a"))
    monkeypatch.setattr(DeltaTable, "create_write_transaction", answers(None))
    with pytest.raises(RootBusy):
        writer.append(records("a"))
    assert ids(table) == ["a"]


@pytest.mark.usefixtures("hasty")
def test_a_store_that_fails_for_long_is_named(root: Root, table: Table[Video]) -> None:
    Path(root.url, "tables").write_text("not a folder")
    writer = table.writer("stage")
    for append in (writer.append, table.append):
        with pytest.raises(StorageError, match=r"tables/videos: rows cannot be written \(.+\)$"):
            append(records("a"))
    Path(root.url, "tables").unlink()
    writer.append(records("a"))
    assert ids(table) == ["a"]


def test_a_full_disk_is_named_at_once(root: Root, table: Table[Video], monkeypatch: pytest.MonkeyPatch) -> None:
    Path(root.url, "tables").write_text("not a folder")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 0))
    monkeypatch.setattr(sayso.writer, "_PAUSE", 1e9)  # not waited for
    with pytest.raises(NoSpace, match=r"no space left on .*videos: free some"):
        table.append(records("a"))


@pytest.mark.usefixtures("hasty")
def test_a_table_that_is_taken_away_is_not_made_again(table: Table[Video]) -> None:
    writer = table.writer("stage")
    writer.append(records("a"))
    shutil.rmtree(table.url)
    with pytest.raises(RootError, match="the table is gone"):
        writer.append(records("b"))
