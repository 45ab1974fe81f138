"""Caption files to spans: one parser a format, one decoder for lines that roll, one place for marks.

    bytes -> text.decode -> srt | vtt | json3 -> cues -> rolling.unroll -> marks.pieces -> list[Span]

`parse` is the way in for a single file; the stage `Captions` does it for every track of a video.
"""

from align.captions.parse import parse
from align.captions.settings import CaptionsSettings
from align.captions.stage import Captions

__all__ = ["Captions", "CaptionsSettings", "parse"]
