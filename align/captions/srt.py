"""SubRip (.srt): numbered cues without word times."""

from __future__ import annotations

from align.captions.blocks import bad, blocks
from align.captions.cues import Cue, Line, spans_of
from align.captions.rolling import undrawn
from align.captions.settings import CaptionsSettings
from align.captions.text import clean, lines_of
from sayso.rows import Span


def read_srt(text: str, settings: CaptionsSettings) -> list[Span]:
    """The spans of an SRT file; words have no times. Files converted from rolling captions are decoded too.

    Raises Permanent("bad_captions") with the line.
    """
    lines = lines_of(text)
    found = [Cue(block.start, block.end, tuple(Line(clean(line)) for line in block.lines)) for block in blocks(lines)]
    if not found and text.strip():
        raise bad(1, "no timing line in the whole file: not SRT")
    return spans_of(undrawn(found, settings.shortest_cue))
