"""Tables: declared once, appended atomically and once."""

from __future__ import annotations

from typing import Any

import pytest
from deltalake.exceptions import DeltaError

from sayso.arrow import schema
from sayso.errors import RootError
from sayso.ids import narration_id, safe, video_id
from sayso.root import Root
from sayso.rows import TABLES, Interval, Media, Narration, Row, SourceFacts, Span, Transcript, Video, Word
from sayso.tables import CommitId


def record(row: Row, stage: str = "test", made_from: str = "x") -> dict[str, Any]:
    return {**row.model_dump(), "made_by": stage, "made_from": made_from}


def transcript(video: str) -> Transcript:
    words = [Word(start=0.0, end=0.5, text="stir"), Word(start=0.5, end=0.9, text="it’s", confidence=0.5)]
    spans = [
        Span(start=0.0, end=0.9, text="stir it’s", words=words),
        Span(start=2.0, end=3.0, text="[Music]", kind="sound"),
    ]
    return Transcript(video_id=video, source="asr:tiny", language="en", speech_seconds=0.9, spans=spans)


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.table)
def test_every_model_has_a_schema_and_a_key(model: type[Row]) -> None:
    found = schema(model)
    assert set(model.key_columns) <= set(found.names)
    assert found.names[-2:] == ["made_by", "made_from"]
    assert len({each.table for each in TABLES}) == len(TABLES)


def test_nested_rows_come_back_as_they_were(root: Root) -> None:
    rows = [transcript("a:1"), transcript("a:2")]
    root.table(Transcript).append([record(row) for row in rows], CommitId("r", 0))
    assert sorted(root.table(Transcript).rows(), key=lambda row: row.video_id) == rows


def test_a_commit_is_made_once(root: Root) -> None:
    table = root.table(Video)
    row = record(Video(video_id="a:1", url="http://x"))
    for number in (0, 0, 1, 1, 0):
        table.append([row], CommitId("run", number))
    assert len(list(table.rows())) == 2
    table.append([row], CommitId("another run", 0))
    assert len(list(table.rows())) == 3
    version = table.version()
    table.append([], CommitId("run", 9))
    assert table.version() == version


def test_a_table_that_was_never_written_is_empty(root: Root) -> None:
    table = root.table(Media)
    assert not table.exists()
    assert table.version() == -1
    assert list(table.rows()) == []
    assert table.read(["video_id"]).num_rows == 0
    assert table.made_from("fetch") == set()


def test_rows_are_found_by_the_values_of_columns(root: Root) -> None:
    table = root.table(Video)
    names = ["a:1", "b:it's", 'c:"x"', "d:%"]
    table.append([record(Video(video_id=name, url="u")) for name in names], CommitId("r", 0))
    for name in names:
        assert [row.video_id for row in table.rows(video_id=name)] == [name]
    assert {row.video_id for row in table.rows(video_id=names[:2])} == set(names[:2])
    assert list(table.rows(video_id=[])) == []
    assert list(table.rows(video_id="a:1", url="other")) == []
    assert list(table.rows(video_id="x' OR '1'='1")) == []


def test_rows_are_found_by_what_is_true_of_them(root: Root) -> None:
    def narration(number: int) -> Narration:
        return Narration(
            narration_id=str(number), video_id="a", start=number, end=number + 1, text="", source="asr:tiny",
            language="en", kept=number % 3 == 0,
        )  # fmt: skip

    table = root.table(Narration)
    table.append([record(narration(number)) for number in range(9)], CommitId("r", 0))
    assert {row.narration_id for row in table.rows(kept=True)} == {"0", "3", "6"}
    assert table.read(["narration_id"], kept=False, video_id="a").num_rows == 6


def test_a_table_is_read_in_pieces(root: Root) -> None:
    table = root.table(Transcript)
    assert list(table.batches(["video_id"])) == []
    count = 20_000
    table.append([record(transcript(f"a:{number}")) for number in range(count)], CommitId("r", 0))
    pieces = list(table.batches(["video_id", "spans"]))
    assert len(pieces) > 1
    assert {piece.schema for piece in pieces} == {table.read(["video_id", "spans"]).schema}
    names = [name for piece in pieces for name in piece["video_id"].to_pylist()]
    assert sorted(names) == sorted(f"a:{number}" for number in range(count))


def test_what_a_stage_made_is_told_from_what_others_made(root: Root) -> None:
    table = root.table(Transcript)
    table.append(
        [record(transcript("a"), "transcribe", "a"), record(transcript("b"), "captions", "b")], CommitId("r", 0)
    )
    assert table.made_from("transcribe") == {"a"}
    assert table.made_from("captions") == {"b"}


def test_an_older_version_can_be_read(root: Root) -> None:
    table = root.table(Video)
    table.append([record(Video(video_id="a", url=""))], CommitId("r", 0))
    version = table.version()
    table.append([record(Video(video_id="b", url=""))], CommitId("r", 1))
    assert [row.video_id for row in table.rows(version)] == ["a"]


def test_a_needed_column_may_not_be_null(root: Root) -> None:
    facts = SourceFacts(sha256="", bytes=0, container="mp4", duration=1.0)
    media = Media(
        video_id="a", key="k", sha256="s", bytes=1, duration=1.0, width=1, height=1, fps=1.0, audio=True, source=facts,
        still=[Interval(start=0, end=1)],
    )  # fmt: skip
    with pytest.raises(DeltaError, match="sha256"):
        root.table(Media).append([{**record(media), "sha256": None}], CommitId("r", 0))
    assert list(root.table(Media).rows()) == []


def test_a_folder_that_is_no_root_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(RootError, match="not a sayso root"):
        Root(str(folder)).open()
    (folder / "sayso.json").write_text("{")
    with pytest.raises(RootError, match="not JSON"):
        Root(str(folder)).open()
    (folder / "sayso.json").write_text('{"format": 99}')
    with pytest.raises(RootError, match="format 99"):
        Root(str(folder)).open()


def test_ids_are_safe_and_stay_apart() -> None:
    assert video_id("YouTube", "dQw4w9WgXcQ") == "youtube:dQw4w9WgXcQ"
    assert video_id("generic", "a/../b") != video_id("generic", "a/..//b")
    assert "/" not in video_id("x", "../../etc/passwd")
    assert "." not in safe("a.b")
    assert len(safe("long" * 100)) < 100
    assert narration_id("a:1", "asr:tiny.en", 1.2345).endswith("@000001234")
