"""Lines that roll: automatic captions show each line twice, once new at the bottom and once old above it.

A cue's new lines are those left when the longest run of lines that was shown last and is shown again, from the
top, is taken away. Lines with word times are new by definition. A genuine repeat stays, for it is a line more on
the display. Files that do not roll are left alone: there, two equal cues in a row are two utterances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from align.captions.cues import Cue, Line

# Cues this close follow each other on the display; after a longer gap it was empty.
_SAME_DISPLAY = 0.05


def undrawn(cues: Iterable[Cue], shortest_cue: float) -> list[Cue]:
    """Cues with each line once. In files that do not roll, those of `shortest_cue` seconds or less are dropped."""
    ordered = sorted(cues, key=lambda cue: cue.start)
    if rolls(ordered):
        return _unroll(ordered, shortest_cue)
    return [cue for cue in ordered if cue.end - cue.start > shortest_cue and _texts(cue)]


def rolls(cues: Sequence[Cue]) -> bool:
    """Whether most cues that change the display keep some of its lines."""
    changes = [
        carried(_texts(before), _texts(after)) > 0
        for before, after in pairwise(cues)
        if _follows(before.end, after) and _texts(before) and _texts(after) and _texts(before) != _texts(after)
    ]
    return 2 * sum(changes) > len(changes)


def carried(shown: Sequence[str], lines: Sequence[str]) -> int:
    """How many of the first `lines` were the last of what was shown."""
    for count in range(min(len(shown), len(lines)), 0, -1):
        if list(shown[-count:]) == list(lines[:count]):
            return count
    return 0


def _unroll(cues: Sequence[Cue], shortest_cue: float) -> list[Cue]:
    decoded: list[Cue] = []
    shown: tuple[str, ...] = ()
    shown_until = float("-inf")
    for cue in cues:
        new = _new_lines(cue, shown, shown_until, shortest_cue)
        if new:
            decoded.append(replace(cue, lines=new))
        shown, shown_until = _texts(cue), cue.end
    return decoded


def _new_lines(cue: Cue, shown: tuple[str, ...], shown_until: float, shortest_cue: float) -> tuple[Line, ...]:
    lines = tuple(line for line in cue.lines if line.text)
    timed_from = next((place for place, line in enumerate(lines) if line.words), None)
    if timed_from is not None:
        return lines[carried(shown, [line.text for line in lines[:timed_from]]) :]
    if not _follows(shown_until, cue):
        return lines
    texts = _texts(cue)
    old = carried(shown, texts)
    # A full display of one line said over and over looks the same when it is said once more.
    said_again = old == len(texts) == len(shown) > 1 and len(set(texts)) == 1 and cue.end - cue.start > shortest_cue
    return lines[old - said_again :]


def _follows(shown_until: float, cue: Cue) -> bool:
    return cue.start <= shown_until + _SAME_DISPLAY


def _texts(cue: Cue) -> tuple[str, ...]:
    return tuple(line.text for line in cue.lines if line.text)
