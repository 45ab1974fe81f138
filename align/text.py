"""Words of written text, also of scripts that write without spaces."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Kana and Chinese characters; Korean has spaces.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_FULL_WIDTH = r"。！？，、；：」』）"
_COUNTED = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’.,-][^\W_{_UNSPACED}]+)*")
_STRETCH = re.compile(r"[^\s。！？]+[。！？」』）]*|[。！？]+")
_NO_SPACE_BETWEEN = re.compile(rf"(?<=[{_UNSPACED}{_FULL_WIDTH}]) (?=[{_UNSPACED}{_FULL_WIDTH}])")


def words_in(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; a Chinese character or kana is a word."""
    return _COUNTED.findall(text.lower())


def split_words(text: str) -> list[str]:
    """The text between spaces, cut after full-width sentence ends too."""
    return _STRETCH.findall(text)


def join_words(words: Sequence[str]) -> str:
    """Words as a line of text: a space between them, but none inside Chinese or Japanese."""
    return _NO_SPACE_BETWEEN.sub("", " ".join(" ".join(words).split()))
