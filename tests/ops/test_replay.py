"""One row of one stage, in the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from align.align import Align
from align.captions import Captions
from ops.replay import replay
from sayso.errors import InputError
from sayso.root import Root
from sayso.rows import CaptionTrack, Media, Row, SourceFacts, Span, Transcript
from sayso.stage import Stage
from shards.settings import ShardSettings
from shards.stage import MakeShards

SRT = b"1\n00:00:01,000 --> 00:00:02,500\nStir it well.\n"


@pytest.fixture
def filled(root: Root) -> Root:
    """Three videos with a caption track each; the second was transcribed."""

    def append(rows: list[Row]) -> None:
        records = [{**row.model_dump(), "made_by": "test", "made_from": "test"} for row in rows]
        root.table(type(rows[0])).append(records)

    def media(video_id: str) -> Media:
        stored = root.storage.put_bytes(SRT, f"media/{video_id}/subtitle.en.srt")
        source = SourceFacts(sha256="0", bytes=1, container="mp4", duration=10.0)
        return Media(
            video_id=video_id, key=f"media/{video_id}/proxy.mp4", sha256="0", bytes=1, duration=10.0, width=320,
            height=256, fps=10.0, audio=True, source=source,
            captions=[CaptionTrack(kind="subtitle", language="en", format="srt", **stored.model_dump())],
        )  # fmt: skip

    append([media(f"site:{number}") for number in range(3)])
    span = Span(start=1, end=2, text="Now stir it.")
    append([Transcript(video_id="site:1", source="asr:a", language="en", speech_seconds=1, spans=[span])])
    return root


def stages_of(root: Root) -> list[Stage[Any, Any]]:
    return [Captions(root), Align(root), MakeShards(root, ShardSettings())]


def test_any_stage_tries_the_row_that_it_is_asked_for_and_leaves_the_tables_alone(filled: Root) -> None:
    stages, before = stages_of(filled), filled.table(Transcript).version()
    (track,) = replay(stages, "captions", "site:2")["rows"]
    assert (track["video_id"], track["spans"][0]["text"]) == ("site:2", "Stir it well.")
    aligned = replay(stages, "align", "site:1")
    assert aligned["outcome"] == "done"
    assert [row["text"] for row in aligned["rows"]] == ["Now stir it."]
    assert replay(stages, "align", "site:2")["reason"] == "no_speech"
    assert filled.table(Transcript).version() == before


@pytest.mark.parametrize(("stage", "row"), [("align", "site:9"), ("shard", "clips/train-000000"), ("shard", "site:1")])
def test_a_row_that_is_not_there_is_named(filled: Root, stage: str, row: str) -> None:
    with pytest.raises(InputError, match=f"{stage} has no input {row}"):
        replay(stages_of(filled), stage, row)


def test_a_stage_that_is_not_there_is_named_with_those_that_are(filled: Root) -> None:
    with pytest.raises(InputError, match="no stage algin; there are captions, align, shard"):
        replay(stages_of(filled), "algin", "site:1")
