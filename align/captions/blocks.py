"""Blocks of SRT and WebVTT: a timing line, then lines of text up to a truly empty line.

pysubs2 reads both formats, but keeps no word times, takes a broken timing line for text of the cue before, and
takes a last line that is a number for the number of a next cue; the tests hold this parser against it elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sayso.errors import Permanent

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")


@dataclass(frozen=True)
class Block:
    """A cue as it is written: times in seconds, raw lines, and the line number (from 1) of its timing line."""

    start: float
    end: float
    lines: tuple[str, ...]
    number: int


def blocks(lines: Sequence[str], first: int = 0) -> Iterator[Block]:
    """The cues among `lines[first:]`. Permanent("bad_captions") names the line of a timing that cannot be read."""
    position = first
    while position < len(lines):
        if "-->" not in lines[position]:
            position += 1
            continue
        start, end = _timing(lines[position], position + 1)
        text_from = position + 1
        position = text_from
        while position < len(lines) and lines[position] != "" and "-->" not in lines[position]:
            position += 1
        yield Block(start, end, tuple(_without_number(lines, text_from, position)), text_from)


def bad(line: int, message: str) -> Permanent:
    """The error of a caption file that is broken at a line."""
    return Permanent("bad_captions", f"line {line}: {message}")


def seconds(hours: str | None, minutes: str, secs: str, fraction: str) -> float:
    """Seconds of a written time; "5" after the point is half a second."""
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(secs)
    return (whole * 1000 + int(fraction.ljust(3, "0"))) / 1000


def _timing(line: str, number: int) -> tuple[float, float]:
    match = _TIMING.fullmatch(line)
    if not match:
        raise bad(number, f"not a timing line: {line.strip()[:80]!r}")
    fields = match.groups()
    if any(int(field) > 59 for field in (fields[1], fields[2], fields[5], fields[6])):
        raise bad(number, f"minutes or seconds above 59: {line.strip()[:80]!r}")
    start, end = seconds(*fields[:4]), seconds(*fields[4:])
    if end < start:
        raise bad(number, f"a cue that ends before it begins: {line.strip()[:80]!r}")
    return start, end


def _without_number(lines: Sequence[str], begin: int, end: int) -> Sequence[str]:
    """Text lines, less the number of the next cue where no empty line stands before it."""
    runs_on = end < len(lines) and lines[end] != "" and end > begin
    return lines[begin : end - 1] if runs_on and lines[end - 1].strip().isdigit() else lines[begin:end]
