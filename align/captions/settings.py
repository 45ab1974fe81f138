"""What can be set about reading captions."""

from __future__ import annotations

from pydantic import Field

from sayso.config import Settings


class CaptionsSettings(Settings):
    """How caption files are read."""

    shortest_cue: float = Field(
        default=0.2,
        ge=0,
        description="seconds; cues this short or shorter are dropped, for they only redraw what is shown",
    )
    longest_word: float = Field(
        default=1.0,
        gt=0,
        description="seconds that a word may last where the file gives only its start, so that pauses are seen",
    )
