"""Rolling captions: words are shown on a simulated two-line display, written to a file, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.captions import parse
from sayso.rows import Span

HOLD_MS = 10


@dataclass(frozen=True)
class Spoken:
    """A line of words said at `starts` (ms); the display is empty before it if `after_pause`."""

    words: tuple[str, ...]
    starts: tuple[int, ...]
    end: int
    after_pause: bool


@st.composite
def spoken_lines(draw: st.DrawFn) -> list[Spoken]:
    """Lines of few different words, so that words, lines and whole displays repeat."""
    word = st.sampled_from(["no", "stop", "it's", "10", "café"])
    lines: list[Spoken] = []
    clock = draw(st.integers(0, 5000))
    for _ in range(draw(st.integers(1, 9))):
        pause = not lines or draw(st.integers(0, 3)) == 0
        clock += draw(st.integers(500, 4000)) if pause else 0
        words = tuple(draw(st.lists(word, min_size=1, max_size=4)))
        starts = []
        for _ in words:
            starts.append(clock)
            clock += draw(st.integers(90, 1500))
        clock += 250
        lines.append(Spoken(words, tuple(starts), clock, pause))
        clock += HOLD_MS
    return lines


def stamp(ms: int) -> str:
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"


def tagged(line: Spoken) -> str:
    later = zip(line.starts[1:], line.words[1:], strict=True)
    return line.words[0] + "".join(f"<{stamp(start)}><c> {word}</c>" for start, word in later)


def displayed(lines: Sequence[Spoken], tags: bool, holds: bool) -> Iterator[tuple[int, int, str, str]]:
    """What a two-line display shows: (start, end, upper line, lower line)."""
    upper = " "
    for place, line in enumerate(lines):
        upper = " " if line.after_pause else upper
        follows = place + 1 < len(lines) and not lines[place + 1].after_pause
        until = lines[place + 1].starts[0] if follows and not holds else line.end
        plain = " ".join(line.words)
        yield line.starts[0], until, upper, tagged(line) if tags else plain
        if holds:
            yield line.end, line.end + HOLD_MS, plain, " "
        upper = plain


def as_vtt(lines: Sequence[Spoken], *, tags: bool, holds: bool) -> bytes:
    cues = [
        f"{stamp(start)} --> {stamp(end)} align:start position:0%\n{upper}\n{lower}\n"
        for start, end, upper, lower in displayed(lines, tags, holds)
    ]
    return "\n".join(["WEBVTT\nKind: captions\nLanguage: en\n", *cues]).encode()


def as_srt(lines: Sequence[Spoken]) -> bytes:
    cues = [
        f"{number}\n{stamp(start)} --> {stamp(end)}\n{upper}\n{lower}\n".replace(".", ",")
        for number, (start, end, upper, lower) in enumerate(displayed(lines, False, True), 1)
    ]
    return "\n".join(cues).encode()


def as_json3(lines: Sequence[Spoken]) -> bytes:
    """A line stays until the one after the next begins; its words come once."""
    events: list[dict[str, object]] = [{"tStartMs": 0, "dDurationMs": 10**7, "id": 1}]
    for place, line in enumerate(lines):
        segments: list[dict[str, object]] = [{"utf8": line.words[0], "acAsrConf": 204}]
        for start, word in zip(line.starts[1:], line.words[1:], strict=True):
            segments.append({"utf8": f" {word}", "tOffsetMs": start - line.starts[0], "acAsrConf": 204})
        gone = lines[place + 1].end if place + 1 < len(lines) else line.end
        events.append({"tStartMs": line.starts[0], "dDurationMs": gone - line.starts[0], "segs": segments})
        events.append({"tStartMs": line.end, "dDurationMs": HOLD_MS, "aAppend": 1, "segs": [{"utf8": "\n"}]})
    return json.dumps({"wireMagic": "pb3", "events": events}).encode()


def words_of(spans: Sequence[Span]) -> list[str]:
    return [word for span in spans for word in span.text.split()]


def said(lines: Sequence[Spoken]) -> list[str]:
    return [word for line in lines for word in line.words]


@given(spoken_lines())
def test_inline_times_decode_exactly(lines: list[Spoken]) -> None:
    spans = parse(as_vtt(lines, tags=True, holds=True), "vtt")
    assert words_of(spans) == said(lines)
    starts = [round(word.start * 1000) for span in spans for word in span.words]
    assert starts == [start for line in lines if len(line.words) > 1 for start in line.starts]
    assert [round(span.start * 1000) for span in spans] == [line.starts[0] for line in lines]


@given(spoken_lines(), st.booleans())
def test_whole_lines_decode_exactly(lines: list[Spoken], holds: bool) -> None:
    spans = parse(as_vtt(lines, tags=False, holds=holds), "vtt")
    assert words_of(spans) == said(lines)
    assert [round(span.start * 1000) for span in spans] == [line.starts[0] for line in lines]


@given(spoken_lines())
def test_rolling_lines_converted_to_srt_decode_exactly(lines: list[Spoken]) -> None:
    assert words_of(parse(as_srt(lines), "srt")) == said(lines)


@given(spoken_lines())
def test_json3_decodes_exactly_with_times_and_confidences(lines: list[Spoken]) -> None:
    words = [word for span in parse(as_json3(lines), "json3") for word in span.words]
    assert [word.text for word in words] == said(lines)
    assert [round(word.start * 1000) for word in words] == [start for line in lines for start in line.starts]
    assert {word.confidence for word in words} == {0.8}
    line_ends = [(start, line.end) for line in lines for start in line.starts]
    for word, (start, line_end) in zip(words, line_ends, strict=True):
        assert word.start <= word.end <= min(start / 1000 + 1.0, line_end / 1000) + 1e-9


@given(spoken_lines(), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_line_ends_and_encodings_change_nothing(lines: list[Spoken], end: str, encoding: str) -> None:
    written = as_vtt(lines, tags=True, holds=True)
    other = written.decode().replace("\n", end).encode(encoding)
    assert parse(other, "vtt") == parse(written, "vtt")


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_equal_cues_that_do_not_roll_are_two_utterances(format: Literal["srt", "vtt"]) -> None:
    body = "00:00:01.000 --> 00:00:02.000\nStir it.\n\n00:00:02.000 --> 00:00:03.000\nStir it.\n"
    text = f"WEBVTT\n\n{body}" if format == "vtt" else body.replace(".000", ",000")
    assert [span.text for span in parse(text.encode(), format)] == ["Stir it.", "Stir it."]


def test_a_real_rolling_file_is_the_same_text_as_its_transcript(real_media: Path) -> None:
    rolling = parse((real_media / "manifesto.vtt").read_bytes(), "vtt")
    plain = parse((real_media / "manifesto.srt").read_bytes(), "srt")
    assert words_of(rolling) == words_of(plain)
    assert len(words_of(plain)) == 206
    # Most lines are timed by the word; these times lie inside the cue that shows the line.
    assert sum(bool(span.words) for span in rolling) >= 30
    for ours, theirs in zip(rolling, plain, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=0.02)
        assert ours.end <= theirs.end + 0.6
