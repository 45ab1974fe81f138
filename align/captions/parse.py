"""One caption file to spans, whatever its format."""

from __future__ import annotations

from typing import Literal

from align.captions.json3 import read_json3
from align.captions.settings import CaptionsSettings
from align.captions.srt import read_srt
from align.captions.text import decode
from align.captions.vtt import read_vtt
from sayso.rows import Span

_READERS = {"srt": read_srt, "vtt": read_vtt, "json3": read_json3}


def parse(
    data: bytes,
    format: Literal["srt", "vtt", "json3"],
    *,
    language: str = "",
    settings: CaptionsSettings | None = None,
) -> list[Span]:
    """The spans of a caption file's bytes, in the order of time. `language` helps to guess old encodings.

    Raises Permanent("bad_captions"), whose message names the line, where the file is broken.
    """
    return _READERS[format](decode(data, language), settings or CaptionsSettings())
