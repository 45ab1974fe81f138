"""Tables: declared once, appended atomically and once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from sayso.arrow import schema
from sayso.errors import RootError, StorageError
from sayso.ids import narration_id, safe, video_id
from sayso.root import Root
from sayso.rows import (
    TABLES,
    Failure,
    Interval,
    Media,
    Narration,
    Part,
    Row,
    SourceFacts,
    Span,
    Transcript,
    Video,
    Word,
    now,
)


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
    root.table(Transcript).append([record(row) for row in rows])
    assert sorted(root.table(Transcript).rows(), key=lambda row: row.video_id) == rows


def test_a_table_that_was_never_written_is_empty(root: Root) -> None:
    table = root.table(Media)
    assert not table.exists()
    assert table.version() == -1
    assert list(table.rows()) == []
    assert table.read(["video_id"]).num_rows == 0
    assert table.made_from("fetch").to_pylist() == table.keys().to_pylist() == []


def test_rows_are_found_by_the_values_of_columns(root: Root) -> None:
    table = root.table(Video)
    names = ["a:1", "b:it's", 'c:"x"', "d:%"]
    table.append([record(Video(video_id=name, url="u")) for name in names])
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
    table.append([record(narration(number)) for number in range(9)])
    assert {row.narration_id for row in table.rows(kept=True)} == {"0", "3", "6"}
    assert table.read(["narration_id"], kept=False, video_id="a").num_rows == 6


def test_more_values_than_a_query_holds_are_found_too(root: Root) -> None:
    table = root.table(Transcript)
    names = [f"v{number:05}" for number in range(3000)]
    table.append([record(transcript(name)) for name in names])
    asked = [*names[::2], *(f"unknown{number}" for number in range(60_000))]
    assert sorted(row.video_id for row in table.rows(video_id=asked)) == names[::2]
    assert table.read(["language"], video_id=asked, source="asr:tiny").num_rows == 1500
    assert table.read(["language"], video_id=asked, source=[*asked, "asr:tiny"]).num_rows == 1500
    assert table.read(["language"], video_id=asked, source=asked).num_rows == 0


def test_rows_are_read_a_few_at_a_time(root: Root) -> None:
    table = root.table(Video)
    table.append([record(Video(video_id=f"v{number}", url="u")) for number in range(5000)])
    batches = table.stream(["video_id", "rank"])
    first = next(batches)
    assert first.schema.names == ["video_id", "rank"]
    assert first.num_rows <= 1024
    assert first.num_rows + sum(batch.num_rows for batch in batches) == 5000
    assert next(table.rows()).url == "u"  # and the rest is never asked for


def test_keys_and_marks_come_once_each(root: Root) -> None:
    table = root.table(Transcript)
    rows = [transcript("a"), transcript("a"), transcript("b"), transcript("b").model_copy(update={"source": "auto:en"})]
    for number, row in enumerate(rows):
        table.append([record(row, "transcribe" if number < 3 else "captions", row.video_id)])
    assert table.keys().type == table.made_from("transcribe").type == pa.large_string()
    assert sorted(table.keys().to_pylist()) == ["a/asr:tiny", "b/asr:tiny", "b/auto:en"]
    assert sorted(table.made_from("transcribe").to_pylist()) == ["a", "b"]
    assert table.made_from("captions").to_pylist() == ["b"]
    assert table.made_from("o'clock").to_pylist() == []


def test_keys_of_a_number_are_named_as_stages_name_them(root: Root) -> None:
    row = Failure(stage="s", id="a/b", kind="retry", reason="r", message="m", attempts=12)
    root.table(Failure).append([record(row)])
    assert root.table(Failure).keys().to_pylist() == ["s/a/b/12"]


def test_an_older_version_can_be_read(root: Root) -> None:
    table = root.table(Video)
    table.append([record(Video(video_id="a", url=""))])
    version = table.version()
    table.append([record(Video(video_id="b", url=""))])
    assert [row.video_id for row in table.rows(version)] == ["a"]


def test_a_needed_column_may_not_be_null(root: Root) -> None:
    facts = SourceFacts(sha256="", bytes=0, container="mp4", duration=1.0)
    media = Media(
        video_id="a", key="k", sha256="s", bytes=1, duration=1.0, width=1, height=1, fps=1.0, audio=True, source=facts,
        still=[Interval(start=0, end=1)],
    )  # fmt: skip
    table = root.table(Media)
    wrong = [{**record(media), "sha256": None}, {**record(media), "still": [{"start": None, "end": 1.0}]}]
    for bad, where in zip(wrong, ("sha256", "still.start"), strict=True):
        with pytest.raises(ValueError, match=where):
            table.append([record(media), bad])
    with pytest.raises(pa.ArrowInvalid, match="int64"):
        table.append([{**record(media), "width": "wide"}])
    assert not table.exists()


class EarlierVideo(Row):
    """Videos as an earlier sayso might have written them."""

    table: ClassVar[str] = "videos"
    key_columns: ClassVar[tuple[str, ...]] = ("video_id",)

    video_id: str
    url: str
    title: str
    found_by: str
    found_at: datetime


class EarlierPart(Part):
    text: str


class Nested(Row):
    """A row whose parts may grow."""

    table: ClassVar[str] = "nested"
    key_columns: ClassVar[tuple[str, ...]] = ("id",)

    id: str
    parts: list[EarlierPart]


class LaterPart(EarlierPart):
    loudness: float | None = None


class LaterNested(Nested):
    parts: list[LaterPart]  # type: ignore[assignment]  # the same column, grown


def test_columns_that_came_later_are_none_in_older_rows(root: Root) -> None:
    earlier, table = root.table(EarlierVideo), root.table(Video)
    old = EarlierVideo(video_id="old", url="u", title="t", found_by="f", found_at=now())
    standing = earlier.writer("earlier")
    earlier.append([record(old)])
    assert [row.model_dump(include={"video_id", "rank"}) for row in table.rows()] == [{"video_id": "old", "rank": None}]
    assert list(table.rows(language="en")) == []
    assert table.read(["rank"]).to_pylist() == [{"rank": None}]
    table.append([record(Video(video_id="new", url="u", rank=3))])
    assert {row.video_id: row.rank for row in table.rows()} == {"old": None, "new": 3}
    assert [row.video_id for row in table.rows(video_id="old", version=1)] == ["old"]
    # An earlier sayso that still runs goes on, though the table changed under it.
    standing.append([record(old.model_copy(update={"video_id": "older"}))])
    assert {row.video_id: row.rank for row in table.rows()} == {"old": None, "new": 3, "older": None}
    assert {row.video_id for row in earlier.rows()} == {"old", "new", "older"}


def test_parts_of_rows_may_grow_too(root: Root) -> None:
    earlier, later = root.table(Nested), root.table(LaterNested)
    earlier.append([record(Nested(id="old", parts=[EarlierPart(text="a")]))])
    assert [row.parts for row in later.rows()] == [[LaterPart(text="a")]]
    later.append([record(LaterNested(id="new", parts=[LaterPart(text="b", loudness=0.5)]))])
    assert {row.id: row.parts[0].loudness for row in later.rows()} == {"old": None, "new": 0.5}


def test_a_table_without_a_column_that_is_needed_is_refused(root: Root) -> None:
    table = root.table(Media)
    older = schema(Media).remove(schema(Media).get_field_index("sha256"))
    DeltaTable.create(table.url, older)
    with pytest.raises(RootError, match=r"tables/media: .*sha256.*--root"):
        list(table.rows())
    assert table.keys().to_pylist() == table.read(["video_id"])["video_id"].to_pylist() == []
    facts = SourceFacts(sha256="", bytes=0, container="mp4", duration=1.0)
    media = Media(
        video_id="a", key="k", sha256="s", bytes=1, duration=1.0, width=1, height=1, fps=1.0, audio=True, source=facts
    )
    for append in (table.append, table.writer("fetch").append):
        with pytest.raises(RootError, match=r"tables/media: .*sha256.*--root"):
            append([record(media)])


def test_a_table_that_cannot_be_read_says_so(root: Root) -> None:
    table = root.table(Video)
    table.append([record(Video(video_id="a", url=""))])
    for file in Path(table.url).glob("*.parquet"):
        file.unlink()
    for read in (table.read, table.keys):
        with pytest.raises(StorageError, match="tables/videos: cannot be read"):
            read()
    with pytest.raises(StorageError, match="tables/videos: cannot be opened"):
        table.read(version=7)


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
