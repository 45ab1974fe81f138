"""json3, the format that automatic captions come in: events of segments, a segment a word.

    {"events": [{"tStartMs": 1599, "dDurationMs": 3760, "segs": [{"utf8": "this", "acAsrConf": 0},
                                                                 {"utf8": " is", "tOffsetMs": 321}]},
                {"tStartMs": 3909, "aAppend": 1, "segs": [{"utf8": "\\n"}]}]}

An event holds new text only, so nothing rolls in it; its duration says how long the line stays on the display,
which is longer than it is spoken. `aAppend` events break the line: the one before is then spoken.
"""

from __future__ import annotations

from itertools import pairwise

from pydantic import BaseModel, FiniteFloat, ValidationError

from align.captions.cues import Cue, Line, ended, spans_of, timed_line
from align.captions.settings import CaptionsSettings
from align.captions.text import clean
from sayso.errors import Permanent
from sayso.rows import Span

_MOST_CONFIDENT = 255.0


class _Segment(BaseModel):
    utf8: str = ""
    tOffsetMs: FiniteFloat | None = None
    acAsrConf: FiniteFloat | None = None

    @property
    def timed(self) -> bool:
        """Whether a machine wrote it: a word with a time or a confidence."""
        return self.tOffsetMs is not None or self.acAsrConf is not None


class _Event(BaseModel):
    tStartMs: FiniteFloat = 0.0
    dDurationMs: FiniteFloat = 0.0
    aAppend: int = 0
    segs: list[_Segment] = []

    @property
    def text(self) -> str:
        return "".join(segment.utf8 for segment in self.segs)


class _File(BaseModel):
    events: list[_Event]


def read_json3(text: str, settings: CaptionsSettings) -> list[Span]:
    """The spans of a json3 file, with word times and confidences where it is an automatic one.

    Raises Permanent("bad_captions") with the line, or with the place among the events.
    """
    try:
        events = _File.model_validate_json(text).events
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise Permanent("bad_captions", f"{place}: {problem['msg']}" if place else problem["msg"]) from None
    events.sort(key=lambda event: event.tStartMs)
    if any(segment.timed for event in events for segment in event.segs):
        return spans_of(_spoken(events, settings))
    return spans_of(_written(events, settings.shortest_cue))


def _written(events: list[_Event], shortest_cue: float) -> list[Cue]:
    """Events of captions that people wrote: cues of whole lines."""
    return [
        Cue(
            event.tStartMs / 1000,
            (event.tStartMs + event.dDurationMs) / 1000,
            tuple(Line(clean(line)) for line in event.text.split("\n")),
        )
        for event in events
        if event.text.strip() and event.dDurationMs / 1000 > shortest_cue
    ]


def _spoken(events: list[_Event], settings: CaptionsSettings) -> list[Cue]:
    """Events of automatic captions: a line is spoken until the next event of any kind."""
    with_text = [event for event in events if event.segs]
    # A track whose confidences are all zero gives none.
    rated = any(segment.acAsrConf for event in events for segment in event.segs)
    ends = [after.tStartMs for _, after in pairwise(with_text)] + [float("inf")]
    cues = []
    for event, next_start in zip(with_text, ends, strict=True):
        end = min(event.tStartMs + event.dDurationMs, next_start) / 1000
        words = ended(_starts(event, rated), end, settings.longest_word)
        if words:
            cues.append(Cue(event.tStartMs / 1000, end, (timed_line(words),)))
    return cues


def _starts(event: _Event, rated: bool) -> list[tuple[float, str, float | None]]:
    return [
        (
            (event.tStartMs + (segment.tOffsetMs or 0.0)) / 1000,
            word,
            segment.acAsrConf / _MOST_CONFIDENT if rated and segment.acAsrConf is not None else None,
        )
        for segment in event.segs
        for word in clean(segment.utf8).split()
    ]
