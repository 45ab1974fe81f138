"""Bytes of caption files to clean text: encodings, line ends, tags, entities, invisible characters."""

from __future__ import annotations

import codecs
import html
import re

# What editors of a language wrote before UTF-8; tried only where the bytes are not UTF-8.
_LEGACY = {
    "zh": "gb18030",
    "ja": "cp932",
    "ko": "cp949",
    "ru": "cp1251",
    "uk": "cp1251",
    "bg": "cp1251",
    "el": "cp1253",
    "tr": "cp1254",
    "he": "cp1255",
    "ar": "cp1256",
    "th": "cp874",
    "pl": "cp1250",
    "cs": "cp1250",
    "hu": "cp1250",
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LINE_END = re.compile(r"\r\n|\n|\r")
# Voice tags stay: they name a speaker and are read with the other marks.
_TAG = re.compile(r"<(?!v[.\s])/?[A-Za-z][^<>]*>|</?>|</v>|<\d[\d:.]*>|\{\\[^{}]*\}")
_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def decode(data: bytes, language: str = "") -> str:
    """The text of a caption file. Never fails: bytes that no rule explains are read as Latin-1.

    A byte order mark decides; then UTF-8; then UTF-16 without a mark, told by its zero bytes; then the code
    page that was usual for `language`.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    guesses = ["utf-8", _LEGACY.get(language.lower().split("-")[0], "cp1252")]
    if data.count(0) > len(data) // 4:
        guesses.insert(0, "utf-16-be" if data[:1] == b"\0" else "utf-16-le")
    for encoding in guesses:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def lines_of(text: str) -> list[str]:
    """The lines of a text. Only CR and LF end a line; a file that ends in one has no empty line after it."""
    lines = _LINE_END.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def clean(text: str) -> str:
    """`text` without tags (but voices), entities, override codes and characters that are not seen."""
    plain = html.unescape(_TAG.sub("", text))
    return " ".join(_INVISIBLE.sub("", plain).split())
