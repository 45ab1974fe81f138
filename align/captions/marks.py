"""Marks in caption text: who speaks, and what is a sound and not speech.

    >> JOHN: Stir it. (applause)   ->   speech "Stir it." by JOHN, sound "(applause)"

A turn without a name (">>", "- ") makes the speaker "": somebody else, not named. No mark makes it None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_UPPER = "A-ZÀ-ÖØ-ÞΑ-ΩА-ЯЁ"
_TURN = rf"""(?: (?:^|(?<=\s)) >{{2,}} \s* | ^ [-–] (?=\s|["'“‘¿¡]?[{_UPPER}]) \s* )"""
_NAME = rf"[{_UPPER}][{_UPPER}0-9 .'’\#&-]{{0,30}}[{_UPPER}0-9.]"
_MARK = re.compile(
    rf"""
      (?P<sound> \[[^\[\]]*\] | [♪♫♬] [^♪♫♬]* [♪♫♬]* | \([^()]*\) )
    | <v(?:\.[^\s<>]*)? \s+ (?P<voice>[^<>]+) >
    | (?: (?P<turn>{_TURN}) | ^ | (?<=\s) ) (?P<name>{_NAME}) : (?=\s|$) \s*
    | {_TURN}
    """,
    re.VERBOSE | re.MULTILINE,
)
# In brackets everything is a remark; in parentheses people also speak ("about a cup").
_SOUND_WORDS = re.compile(
    r"\b(?:applau|cheer|clap|chuckl|cough|cry|gasp|groan|grunt|hum(?:s|ming)\b|inaudible|instrumental|laugh|music|"
    r"noise|scream|sigh|silence|sing(?:s|ing)\b|sniff|sob|sound|whistl|whoosh|beep|buzz|bang|click|thud)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Piece:
    """A stretch of a text between marks: text[begin:end] without surrounding white space, on one line."""

    text: str
    begin: int
    end: int
    kind: Literal["speech", "sound"]
    speaker: str | None


def pieces(text: str) -> list[Piece]:
    """The speech and the sounds of a cue's text (lines joined by "\\n"), in order, marks taken out."""
    return list(_walk(text))


def _walk(text: str) -> Iterator[Piece]:
    speaker: str | None = None
    position = 0
    for mark in _MARK.finditer(text):
        if mark["sound"] and not _is_sound(text, mark):
            continue
        if mark["name"] and not _begins_a_turn(text, mark):
            continue
        yield from _piece(text, position, mark.start(), "speech", speaker)
        position = mark.end()
        if mark["sound"]:
            yield from _piece(text, mark.start(), mark.end(), "sound", speaker)
        else:
            speaker = (mark["voice"] or mark["name"] or "").strip()
    yield from _piece(text, position, len(text), "speech", speaker)


def _piece(text: str, begin: int, end: int, kind: Literal["speech", "sound"], speaker: str | None) -> Iterator[Piece]:
    words = text[begin:end].split()
    if any(character.isalnum() or character in "♪♫♬" for word in words for character in word):
        yield Piece(" ".join(words), begin, end, kind, speaker)


def _is_sound(text: str, mark: re.Match[str]) -> bool:
    inside = mark["sound"]
    if not inside.startswith("("):
        return True
    line_start = text.rfind("\n", 0, mark.start()) + 1
    line_end = text.find("\n", mark.end())
    around = text[line_start : mark.start()] + text[mark.end() : line_end if line_end >= 0 else len(text)]
    alone = not any(character.isalnum() for character in around)
    return alone or inside.isupper() or bool(_SOUND_WORDS.search(inside))


def _begins_a_turn(text: str, mark: re.Match[str]) -> bool:
    """A name counts after a turn mark or at the start of a line: "use PVA: it dries clear" names nobody."""
    if mark["turn"]:
        return True
    before = text[: mark.start()].rstrip(" ")
    return not before or before.endswith(("\n", "]", ")"))
