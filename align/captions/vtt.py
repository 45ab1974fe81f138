"""WebVTT (.vtt), with the inline word times of automatic captions: `word<00:00:01.920><c> next</c>`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from align.captions.blocks import Block, bad, blocks, seconds
from align.captions.cues import Cue, Line, ended, spans_of, timed_line
from align.captions.rolling import undrawn
from align.captions.settings import CaptionsSettings
from align.captions.text import clean, lines_of
from sayso.rows import Span

_SIGNATURE = re.compile(r"WEBVTT(?:[ \t].*)?")
_INLINE_TIME = re.compile(r"<((?:\d+:)?\d{1,2}:\d{1,2}\.\d{1,3})>")


def read_vtt(text: str, settings: CaptionsSettings) -> list[Span]:
    """The spans of a WebVTT file; words have times where the file gives them.

    Raises Permanent("bad_captions") with the line.
    """
    lines = lines_of(text)
    if not lines or not _SIGNATURE.fullmatch(lines[0]):
        raise bad(1, "does not begin with WEBVTT")
    cues = [_cue(block, settings.longest_word) for block in blocks(_without_comments(lines), 1)]
    return spans_of(undrawn(cues, settings.shortest_cue))


def _without_comments(lines: list[str]) -> list[str]:
    """Lines with those of NOTE, STYLE and REGION blocks emptied, so that line numbers stay."""
    kept, inside, before = [], False, ""
    for line in lines:
        if before == "" and re.fullmatch(r"(?:NOTE|STYLE|REGION)(?:[ \t].*)?", line):
            inside = True
        inside = inside and line != ""
        kept.append("" if inside else line)
        before = line
    return kept


def _cue(block: Block, longest_word: float) -> Cue:
    return Cue(block.start, block.end, tuple(_lines(block, longest_word)))


def _lines(block: Block, longest_word: float) -> Iterator[Line]:
    for raw in block.lines:
        parts = _INLINE_TIME.split(raw)
        if len(parts) == 1:
            yield Line(clean(raw))
            continue
        times = [block.start, *(_inline_seconds(mark) for mark in parts[1::2])]
        starts = [word for timed in _starts(times, parts[0::2], block.end) for word in timed]
        yield timed_line(ended(starts, block.end, longest_word))


def _inline_seconds(mark: str) -> float:
    *hours, minutes, rest = mark.split(":")
    whole, fraction = rest.split(".")
    return seconds(hours[0] if hours else None, minutes, whole, fraction)


def _starts(times: list[float], texts: list[str], end: float) -> Iterator[list[tuple[float, str, float | None]]]:
    """The words of each stretch between time tags; several words share their stretch by letters."""
    for start, until, text in zip(times, [*times[1:], end], texts, strict=True):
        words = clean(text).split()
        letters = sum(len(word) for word in words)
        before = 0
        timed: list[tuple[float, str, float | None]] = []
        for word in words:
            timed.append((start + max(0.0, until - start) * before / letters, word, None))
            before += len(word)
        yield timed
