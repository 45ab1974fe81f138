"""Cues, and how a cue becomes spans: marks are read, words and times are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from align.captions.marks import Piece, pieces
from sayso.rows import Span, Word


@dataclass(frozen=True)
class Line:
    """A line of a cue. `words` is empty where the file does not time them; else they spell `text`."""

    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Cue:
    """What is shown during [start, end), in seconds."""

    start: float
    end: float
    lines: tuple[Line, ...]


def timed_line(words: Iterable[Word]) -> Line:
    """A line whose words have times."""
    kept = tuple(words)
    return Line(" ".join(word.text for word in kept), kept)


def ended(starts: list[tuple[float, str, float | None]], end: float, longest: float) -> list[Word]:
    """Words from (start, text, confidence): each ends where the next begins, at `end`, or after `longest` seconds.

    Formats of rolling captions give starts only; without a limit a word would last through a pause.
    """
    if not starts:
        return []
    bounds = [*(start for start, _, _ in starts[1:]), end]
    return [
        Word(start=start, end=max(start, min(bound, start + longest)), text=text, confidence=confidence)
        for (start, text, confidence), bound in zip(starts, bounds, strict=True)
    ]


def spans_of(cues: Iterable[Cue]) -> list[Span]:
    """The spans of cues, in the order of time. Cues that overlap stay as they are."""
    spans = [span for cue in cues for span in _spans_of_cue(cue)]
    return sorted(spans, key=lambda span: (span.start, span.end))


def _spans_of_cue(cue: Cue) -> Iterator[Span]:
    """Timed lines stand for themselves; the untimed lines of a cue are read together."""
    untimed = "\n".join(line.text for line in cue.lines if not line.words)
    yield from _untimed_spans(untimed, cue.start, cue.end)
    for line in cue.lines:
        if line.words:
            yield from _timed_spans(line)


def _untimed_spans(text: str, start: float, end: float) -> Iterator[Span]:
    """Pieces follow each other through the cue, each with a share of its time by the length of its text."""
    found = pieces(text)
    total = sum(len(piece.text) for piece in found)
    before = 0
    for piece in found:
        after = before + len(piece.text)
        yield Span(
            start=start + (end - start) * before / total,
            end=end if after == total else start + (end - start) * after / total,
            text=piece.text,
            speaker=piece.speaker,
            kind=piece.kind,
        )
        before = after


def _timed_spans(line: Line) -> Iterator[Span]:
    for piece in pieces(line.text):
        words = list(_words_inside(line, piece))
        known = [word.confidence for word in words if word.confidence is not None]
        yield Span(
            start=words[0].start,
            end=words[-1].end,
            text=piece.text,
            words=words,
            speaker=piece.speaker,
            kind=piece.kind,
            confidence=sum(known) / len(known) if known else None,
        )


def _words_inside(line: Line, piece: Piece) -> Iterator[Word]:
    """The line's words, cut to the piece: "(laughs)so" is a sound and a word."""
    begin = 0
    for word in line.words:
        end = begin + len(word.text)
        inside = line.text[max(begin, piece.begin) : max(begin, min(end, piece.end))].strip()
        if inside:
            yield word.model_copy(update={"text": inside})
        begin = end + 1
