"""The align stage: from tables to narrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align.align import Align, AlignSettings, narrations
from align.captions import parse
from align.video import VideoText, video_text
from sayso.config import load
from sayso.errors import ConfigError, Skip
from sayso.ids import narration_id
from sayso.root import Root
from sayso.rows import Interval, Media, Narration, Row, SourceFacts, Span, Transcript

EVERYTHING = AlignSettings()


def media(video_id: str = "demo:1", *, sha256: str = "a", **facts: Any) -> Media:
    source = SourceFacts(sha256=sha256, bytes=1, container="mp4", duration=60.0)
    plain = {"duration": 60.0, "width": 320, "height": 256, "fps": 10.0, "audio": True, "source": source}
    return Media.model_validate(
        {"video_id": video_id, "key": f"media/{video_id}/proxy.mp4", "sha256": "0", "bytes": 1, **plain, **facts}
    )


def transcript(source: str, *texts: str, language: str = "en", confidence: float | None = None) -> Transcript:
    spans = [Span(start=4.0 * n, end=4.0 * n + 2, text=text, confidence=confidence) for n, text in enumerate(texts)]
    return Transcript(video_id="demo:1", source=source, language=language, speech_seconds=1.0, spans=spans)


def made(*transcripts: Transcript, settings: AlignSettings = EVERYTHING, **facts: Any) -> list[Narration]:
    return narrations(video_text(media(**facts), list(transcripts)), settings)


def reason_of_skip(row: VideoText, settings: AlignSettings = EVERYTHING) -> str:
    with pytest.raises(Skip) as caught:
        narrations(row, settings)
    return caught.value.reason


def append(root: Root, *rows: Row) -> None:
    for number, row in enumerate(rows):
        record = {**row.model_dump(), "made_by": "test", "made_from": str(number)}
        root.table(type(row)).append([record])


def test_narrations_have_times_ids_and_reasons() -> None:
    kept, dropped = made(transcript("asr:tiny", "Now stir it.", "Okay.", confidence=0.9))
    assert (kept.start, kept.end, kept.text, kept.kept, kept.reason) == (0.0, 2.0, "Now stir it.", True, "")
    assert kept.narration_id == narration_id("demo:1", "asr:tiny", 0.0)
    assert (kept.source, kept.language) == ("asr:tiny", "en")
    assert kept.confidence == pytest.approx(0.9)
    assert (dropped.text, dropped.kept, dropped.reason) == ("Okay.", False, "too_short")


def test_rows_are_written_even_if_all_are_dropped() -> None:
    rows = made(transcript("asr:tiny", "Okay.", "Yes."))
    assert [row.reason for row in rows] == ["too_short", "too_short"]


def test_the_most_trusted_usable_source_is_taken() -> None:
    written = transcript("subtitle:en", "Written by people.")
    heard = transcript("asr:tiny", "Heard by us.", confidence=0.9)
    site = transcript("auto:en", "Heard by them.")
    assert [row.source for row in made(site, heard, written)] == ["subtitle:en"]
    assert [row.source for row in made(site, heard)] == ["asr:tiny"]
    assert [row.source for row in made(site)] == ["auto:en"]
    asr_first = AlignSettings(sources=("asr", "subtitle"))
    assert [row.source for row in made(site, heard, written, settings=asr_first)] == ["asr:tiny"]
    assert reason_of_skip(video_text(media(), [site]), asr_first) == "no_speech"
    everything = AlignSettings(take="all")
    assert [row.source for row in made(site, heard, written, settings=everything)] == [
        "subtitle:en",
        "asr:tiny",
        "auto:en",
    ]


def test_unusable_sources_are_passed_over() -> None:
    german = transcript("subtitle:de", "Jetzt gut umrühren.", language="de")
    sounds = Transcript(
        video_id="demo:1", source="subtitle:en", language="en", speech_seconds=0,
        spans=[Span(start=0, end=9, text="[Music]", kind="sound")],
    )  # fmt: skip
    junk = transcript("asr:tiny", "go on " * 20, confidence=0.9)
    site = transcript("auto:en", "Heard by them.")
    assert [row.source for row in made(german, sounds, junk, site)] == ["auto:en"]
    assert reason_of_skip(video_text(media(), [german, sounds, junk])) == "low_confidence"
    assert reason_of_skip(video_text(media(), [german, sounds])) == "wrong_language"
    assert reason_of_skip(video_text(media(), [sounds])) == "no_speech"
    assert reason_of_skip(video_text(media(), [])) == "no_speech"


def test_languages_are_wanted_in_order_and_regions_do_not_matter() -> None:
    english = transcript("subtitle:en-GB", "Now stir it.", language="en-GB")
    german = transcript("subtitle:de", "Jetzt gut umrühren.", language="de")
    assert [row.language for row in made(english, german)] == ["en"]
    assert [row.language for row in made(english, german, settings=AlignSettings(languages=("de", "en-US")))] == ["de"]
    assert [row.language for row in made(german, settings=AlignSettings(languages=()))] == ["de"]


def test_videos_that_cannot_be_used_are_skipped() -> None:
    said = [transcript("asr:tiny", "Now stir it.")]
    assert reason_of_skip(video_text(media(width=0, height=0), said)) == "no_video"


def test_a_still_video_drops_all_that_is_said() -> None:
    said = transcript("asr:tiny", "Now stir it.")
    (row,) = made(said, still=[Interval(start=0, end=58)])
    assert (row.kept, row.reason) == (False, "still_picture")
    (row,) = made(said, still=[Interval(start=0, end=30), Interval(start=30, end=60)])
    assert row.kept


def test_times_stay_inside_the_video() -> None:
    inside, outside = made(transcript("asr:tiny", "Now stir it.", "Then pour it."), duration=1.5)
    assert (inside.end, inside.kept) == (1.5, True)
    assert (outside.end, outside.reason) == (6.0, "outside")


def test_sentences_that_begin_together_have_ids_of_their_own() -> None:
    spans = [Span(start=1, end=3, text=text) for text in ("Now stir it.", "And pour it.", "I said stir.")]
    said = transcript("subtitle:en").model_copy(update={"spans": spans})
    rows = made(said)
    assert [row.start for row in rows] == [1.0, 1.0, 1.0]
    assert len({row.narration_id for row in rows}) == 3


@given(st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_the_order_of_transcripts_and_spans_does_not_matter(data: st.DataObject) -> None:
    word = st.sampled_from(["Stir", "it.", "now", "Thank", "you.", "pour", "[x]"])
    time = st.integers(0, 20).map(float)
    sources = data.draw(
        st.lists(st.sampled_from(["asr:a", "asr:b", "auto:en", "subtitle:en"]), unique=True, min_size=1)
    )
    tracks = []
    for source in sources:
        spans = []
        for start, words in data.draw(st.lists(st.tuples(time, st.lists(word, min_size=1, max_size=5)), max_size=5)):
            spans.append(Span(start=start, end=start + 3, text=" ".join(words)))
        tracks.append(transcript(source).model_copy(update={"spans": spans}))
    everything = AlignSettings(take="all")

    def outcome(transcripts: Sequence[Transcript]) -> object:
        row = VideoText(video_id="demo:1", media=media(), transcripts=list(transcripts))
        try:
            return narrations(row, everything)
        except Skip as skip:
            return skip.reason

    random = data.draw(st.randoms(use_true_random=False))
    assert outcome([shuffled(track, random) for track in random.sample(tracks, len(tracks))]) == outcome(tracks)


def shuffled(track: Transcript, random: Random) -> Transcript:
    return track.model_copy(update={"spans": random.sample(track.spans, len(track.spans))})


def test_the_stage_gathers_each_video_with_its_text(root: Root) -> None:
    texts = [transcript("subtitle:en", "Now stir it."), transcript("asr:tiny", "Now stir it.")]
    append(root, media("demo:2"), media(), texts[0], texts[1])
    stage = Align(root)
    stage.open()
    assert sorted(stage.input_keys().to_pylist()) == ["demo:1", "demo:2"]
    rows = {stage.key(row): row for row in stage.inputs(["demo:2", "demo:1"])}
    assert rows.keys() == {"demo:1", "demo:2"}
    assert [each.source for each in rows["demo:1"].transcripts] == ["asr:tiny", "subtitle:en"]
    (row,) = stage(rows["demo:1"])
    assert row.source == "subtitle:en"
    with pytest.raises(Skip, match="no speech"):
        stage(rows["demo:2"])
    assert stage.video_seconds(rows["demo:1"], []) == 60.0


def test_the_stage_gathers_the_videos_that_it_is_asked_for(root: Root) -> None:
    ids = [f"demo:{number}" for number in range(2300)]
    records = [{**media(video_id).model_dump(), "made_by": "test", "made_from": ""} for video_id in ids]
    root.table(Media).append(records)
    append(root, transcript("asr:tiny", "Now stir it."))
    stage = Align(root)
    assert sorted(stage.input_keys().to_pylist()) == sorted(ids)
    asked = [*ids[1::2], ids[1], "demo:gone"]
    found = [(row.video_id, len(row.transcripts)) for row in stage.inputs(asked)]
    assert sorted(found) == sorted((video_id, int(video_id == "demo:1")) for video_id in ids[1::2])


def test_what_is_made_of_a_video_does_not_depend_on_its_copies(root: Root) -> None:
    append(root, media("demo:0", sha256="a"), media("demo:1", sha256="a"), transcript("asr:tiny", "Now stir it."))
    stage = Align(root)
    (row,) = stage.inputs(["demo:1"])
    assert stage(row) == made(transcript("asr:tiny", "Now stir it."))


def test_the_stage_has_nothing_to_do_in_an_empty_root(root: Root) -> None:
    stage = Align(root)
    assert stage.input_keys().to_pylist() == []
    assert list(stage.inputs(["demo:1"])) == []


def test_settings_are_checked_and_documented() -> None:
    assert load(AlignSettings, overrides=["quality.fewest_words=3"]).quality.fewest_words == 3
    with pytest.raises(ConfigError, match=r"quality\.fewest_wrds"):
        load(AlignSettings, overrides=["quality.fewest_wrds=3"])
    with pytest.raises(ConfigError, match="sources"):
        load(AlignSettings, overrides=["sources=[speech]"])


def test_a_real_file_becomes_sentences_of_the_same_words(real_media: Path) -> None:
    rolling = parse((real_media / "manifesto.vtt").read_bytes(), "vtt")
    plain = parse((real_media / "manifesto.srt").read_bytes(), "srt")
    outcomes = []
    for source, spans in (("auto:en", rolling), ("subtitle:en", plain)):
        track = transcript(source).model_copy(update={"spans": spans})
        outcomes.append(made(track, duration=88.1))
    for rows in outcomes:
        assert " ".join(row.text for row in rows).split() == [word for span in plain for word in span.text.split()]
        assert {row.reason for row in rows} <= {"", "too_short"}
        assert all(row.end - row.start <= EVERYTHING.sentences.seconds for row in rows)
