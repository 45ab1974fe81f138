"""Caption files: formats, marks, encodings, broken files, and the stage."""

from __future__ import annotations

import json
from typing import Literal

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.captions import Captions, parse
from sayso.errors import Permanent, Skip
from sayso.root import Root
from sayso.rows import CaptionTrack, Media, SourceFacts, Span

Format = Literal["srt", "vtt", "json3"]


def srt(*texts: str) -> bytes:
    cues = [f"{n}\n00:00:{2 * n:02},000 --> 00:00:{2 * n + 1:02},500\n{text}\n" for n, text in enumerate(texts, 1)]
    return "\n".join(cues).encode()


def vtt(*texts: str) -> bytes:
    cues = [f"00:{2 * n:02}.000 --> 00:{2 * n + 1:02}.500\n{text}\n" for n, text in enumerate(texts, 1)]
    return "\n".join(["WEBVTT\n", *cues]).encode()


def read(text: str) -> list[tuple[str, str | None, str]]:
    return [(span.kind, span.speaker, span.text) for span in parse(srt(text), "srt")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Music]", [("sound", None, "[Music]")]),
        ("(applause)", [("sound", None, "(applause)")]),
        ("♪ la la la ♪", [("sound", None, "♪ la la la ♪")]),
        ("♪", [("sound", None, "♪")]),
        ("(door\ncreaks loudly)", [("sound", None, "(door creaks loudly)")]),
        ("Stir it [laughs] well", [("speech", None, "Stir it"), ("sound", None, "[laughs]"), ("speech", None, "well")]),
        ("Add sugar (about a cup) now", [("speech", None, "Add sugar (about a cup) now")]),
        ("JOHN: Stir it.", [("speech", "JOHN", "Stir it.")]),
        ("DR. O'NEIL #2: Stir.", [("speech", "DR. O'NEIL #2", "Stir.")]),
        (">> Stir it.", [("speech", "", "Stir it.")]),
        (">> ANN: Stir it.", [("speech", "ANN", "Stir it.")]),
        ("fine >> and you?", [("speech", None, "fine"), ("speech", "", "and you?")]),
        ("- Ready?\n- Yes.", [("speech", "", "Ready?"), ("speech", "", "Yes.")]),
        ("-Ready?\n-Yes.", [("speech", "", "Ready?"), ("speech", "", "Yes.")]),
        ("- ANN: Go?\n- (laughs) Yes.", [("speech", "ANN", "Go?"), ("sound", "", "(laughs)"), ("speech", "", "Yes.")]),
        ("-5 degrees", [("speech", None, "-5 degrees")]),
        ("Use PVA: it dries clear", [("speech", None, "Use PVA: it dries clear")]),
        ("Note: it dries", [("speech", None, "Note: it dries")]),
        ("at 10:30 we stir", [("speech", None, "at 10:30 we stir")]),
        ("<i>Stir</i> it &amp; &lt;wait&gt;", [("speech", None, "Stir it & <wait>")]),
        ("{\\an8}<font color=\"#fff\">Stir</font>", [("speech", None, "Stir")]),
        ("Stir\u200b it\u00a0now\ufeff", [("speech", None, "Stir it now")]),
        ("so [ __ ] hot", [("speech", None, "so"), ("speech", None, "hot")]),
    ],
)  # fmt: skip
def test_marks(text: str, expected: list[tuple[str, str | None, str]]) -> None:
    assert read(text) == expected


def test_pieces_of_a_cue_share_its_time_in_order() -> None:
    first, second = parse(srt("- Ready?\n- Yes yes yes."), "srt")
    assert first.start == 2.0
    assert first.end == second.start == pytest.approx(2 + 1.5 * 6 / 18)
    assert second.end == 3.5


def test_voice_tags_name_the_speaker() -> None:
    spans = parse(vtt("<v Roger Bingham>We are in <b>New York</b></v>", "<v.loud Neil>Yes"), "vtt")
    assert [(span.speaker, span.text) for span in spans] == [
        ("Roger Bingham", "We are in New York"),
        ("Neil", "Yes"),
    ]


def test_marks_among_timed_words_keep_the_times() -> None:
    text = "00:01.000 --> 00:04.000\n[Music]<00:02.000><c> &gt;&gt;</c><00:02.500><c> stir</c><00:03.000><c> it</c>\n"
    sound, speech = parse(f"WEBVTT\n\n{text}".encode(), "vtt")
    assert (sound.kind, sound.start, sound.end) == ("sound", 1.0, 2.0)
    assert (speech.kind, speech.speaker, speech.start) == ("speech", "", 2.5)
    assert [(word.text, word.start, word.end) for word in speech.words] == [("stir", 2.5, 3.0), ("it", 3.0, 4.0)]


def test_a_word_does_not_last_through_a_pause() -> None:
    text = "WEBVTT\n\n00:00.000 --> 00:09.000\nstir<00:00.400><c> it</c><00:08.000><c> well</c>\n"
    (span,) = parse(text.encode(), "vtt")
    assert [(word.start, word.end) for word in span.words] == [(0.0, 0.4), (0.4, 1.4), (8.0, 9.0)]


def test_short_cues_are_dropped_and_overlapping_ones_kept() -> None:
    cues = [
        "00:01.000 --> 00:01.200\nflash\n",
        "00:02.000 --> 00:05.000\none\n",
        "00:03.000 --> 00:04.000\ntwo\n",
    ]
    spans = parse("\n".join(["WEBVTT\n", *cues]).encode(), "vtt")
    assert [(span.text, span.start, span.end) for span in spans] == [("one", 2.0, 5.0), ("two", 3.0, 4.0)]


def test_a_cue_ends_at_a_truly_empty_line_only() -> None:
    text = "WEBVTT\n\nid 1\n00:01.000 --> 00:02.000\nstir\n \nit\n\nNOTE not\nread\n\nSTYLE\n::cue {}\n\n"
    (span,) = parse(text.encode(), "vtt")
    assert span.text == "stir it"


def test_cues_without_an_empty_line_between_keep_their_text() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nstir\n2\n00:00:03,000 --> 00:00:04,000\nadd\n10\n"
    assert [span.text for span in parse(text.encode(), "srt")] == ["stir", "add 10"]


@pytest.mark.parametrize(
    ("language", "encoding", "text"),
    [
        ("en", "utf-8-sig", "café"),
        ("en", "utf-16", "café"),
        ("en", "utf-16-le", "plain café text"),
        ("en", "utf-32", "café"),
        ("fr", "cp1252", "Où ça ? «là»"),
        ("ru", "cp1251", "Добавьте сахар"),
        ("zh-Hans", "gb18030", "加入糖和盐"),
        ("ja", "cp932", "砂糖を入れる"),
    ],
)
def test_old_encodings(language: str, encoding: str, text: str) -> None:
    data = srt(text).decode().encode(encoding)
    assert [span.text for span in parse(data, "srt", language=language)] == [text]


@given(st.binary(max_size=200), st.sampled_from(["srt", "vtt", "json3"]))
def test_any_bytes_are_read_or_refused(data: bytes, format: Format) -> None:
    refused: list[str] = []
    for prefix in (b"", b"WEBVTT\n\n00:01.000 --> 00:02.000\n", b'{"events": [{"segs": [{"utf8": "'):
        spans: list[Span] = []
        try:
            spans = parse(prefix + data, format)
        except Permanent as error:
            refused.append(error.reason)
        assert all(span.start <= span.end and span.text for span in spans)
    assert set(refused) <= {"bad_captions"}


@pytest.mark.parametrize(
    ("format", "text", "where"),
    [
        ("srt", "1\n00:00:01,000 --> 00:00:02,000\nok\n\n2\n00:00:xx,000 --> 00:00:04,000\nbad\n", "line 6"),
        ("srt", "1\n00:00:01,000 --> 00:99:02,000\nok\n", "line 2"),
        ("srt", "1\n00:00:05,000 --> 00:00:02,000\nok\n", "line 2"),
        ("srt", "<html>not found</html>", "line 1"),
        ("vtt", "1\n00:00:01.000 --> 00:00:02.000\nok\n", "line 1"),
        ("vtt", "WEBVTT\n\n00:01.000 -->\nok\n", "line 3"),
        ("vtt", "", "line 1"),
        ("json3", '{"events": [\n{"tStartMs": 1,\n', "line 3"),
        ("json3", '{"events": [{"tStartMs": "soon"}]}', "events.0.tStartMs"),
        ("json3", "[]", "object"),
    ],
)
def test_broken_files_name_the_line(format: Format, text: str, where: str) -> None:
    with pytest.raises(Permanent) as caught:
        parse(text.encode(), format)
    assert caught.value.reason == "bad_captions"
    assert where in caught.value.message


PLAIN = st.text(st.sampled_from("abcdé,.? "), min_size=1, max_size=20).filter(lambda text: any(map(str.isalpha, text)))


@given(st.lists(st.tuples(st.integers(300, 4000), st.integers(250, 4000), PLAIN), max_size=8))
def test_srt_is_read_as_pysubs2_reads_it(cues: list[tuple[int, int, str]]) -> None:
    written = pysubs2.SSAFile()
    clock = 0
    for gap, length, text in cues:
        written.append(pysubs2.SSAEvent(start=clock + gap, end=clock + gap + length, text=text))
        clock += gap + length
    data = written.to_string("srt")
    theirs = [(e.start, e.end, e.plaintext.split()) for e in pysubs2.SSAFile.from_string(data, "srt")]
    ours = [(round(s.start * 1000), round(s.end * 1000), s.text.split()) for s in parse(data.encode(), "srt")]
    assert ours == theirs


def test_json3_that_people_wrote_has_lines_and_no_word_times() -> None:
    events = [
        {"tStartMs": 1000, "dDurationMs": 2000, "segs": [{"utf8": "Stir it\nwell."}]},
        {"tStartMs": 2500, "dDurationMs": 2000, "segs": [{"utf8": "[Music]"}]},
        {"tStartMs": 5000, "dDurationMs": 100, "segs": [{"utf8": "flash"}]},
    ]
    spans = parse(json.dumps({"events": events}).encode(), "json3")
    assert [(span.kind, span.text, span.start, span.end, span.words) for span in spans] == [
        ("speech", "Stir it well.", 1.0, 3.0, []),
        ("sound", "[Music]", 2.5, 4.5, []),
    ]


def media(root: Root, **files: bytes) -> Media:
    """A media row whose tracks are `<kind>_<language>_<format>=bytes`."""
    tracks = []
    for name, data in files.items():
        kind, language, format = name.split("_")
        stored = root.storage.put_bytes(data, f"media/demo:1/{kind}.{language}.{format}")
        facts = {"kind": kind, "language": language.replace("X", "-"), "format": format}
        tracks.append(CaptionTrack.model_validate({**facts, **stored.model_dump()}))
    source = SourceFacts(sha256="0", bytes=1, container="mp4", duration=10.0)
    return Media(
        video_id="demo:1", key="media/demo:1/proxy.mp4", sha256="0", bytes=1, duration=10.0, width=320, height=256,
        fps=10.0, audio=True, captions=tracks, source=source,
    )  # fmt: skip


def test_stage_makes_a_transcript_a_track(root: Root) -> None:
    row = media(root, subtitle_enXUS_srt=srt("Stir.", "[Music]"), auto_de_vtt=vtt("Umrühren."))
    auto, subtitle = Captions(root)(row)
    assert (auto.source, auto.language, auto.speech_seconds) == ("auto:de", "de", 1.5)
    assert (subtitle.source, subtitle.language, subtitle.speech_seconds) == ("subtitle:en-US", "en", 1.5)
    assert [span.kind for span in subtitle.spans] == ["speech", "sound"]


def test_stage_takes_the_format_that_says_most(root: Root) -> None:
    event = {"tStartMs": 0, "dDurationMs": 900, "segs": [{"utf8": "from"}, {"utf8": " json3", "tOffsetMs": 300}]}
    row = media(root, auto_en_srt=srt("from srt"), auto_en_json3=json.dumps({"events": [event]}).encode())
    (transcript,) = Captions(root)(row)
    assert [span.text for span in transcript.spans] == ["from json3"]


def test_stage_reads_past_a_broken_track(root: Root) -> None:
    row = media(root, auto_en_vtt=b"oops", subtitle_en_srt=srt("Stir."))
    assert [transcript.source for transcript in Captions(root)(row)] == ["subtitle:en"]


def test_stage_reports_what_it_cannot_do(root: Root) -> None:
    stage = Captions(root)
    with pytest.raises(Skip) as nothing:
        stage(media(root))
    assert nothing.value.reason == "no_captions"
    with pytest.raises(Skip) as empty:
        stage(media(root, auto_en_vtt=b"WEBVTT\n"))
    assert empty.value.reason == "no_captions"
    with pytest.raises(Permanent, match=r"auto\.en\.vtt: line 1") as broken:
        stage(media(root, auto_en_vtt=b"oops"))
    assert broken.value.reason == "bad_captions"


def test_speech_seconds_count_overlaps_once(root: Root) -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:04.000\none\n\n00:02.000 --> 00:03.000\ntwo\n\n00:06.000 --> 00:07.000\nthree\n"
    (transcript,) = Captions(root)(media(root, subtitle_en_vtt=text.encode()))
    assert transcript.speech_seconds == pytest.approx(4.0)
    assert all(isinstance(span, Span) for span in transcript.spans)
