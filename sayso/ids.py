"""Ids that are safe as object keys and tar keys. Never made from titles."""

from __future__ import annotations

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST = 80


def safe(text: str) -> str:
    """`text` with only [A-Za-z0-9_-]; where anything had to be changed, a hash keeps it distinct."""
    clean = _UNSAFE.sub("_", text)[:_LONGEST]
    if clean == text:
        return text
    return f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def video_id(extractor: str, identifier: str) -> str:
    """The id of a video: `<extractor>:<id>`, each part made safe."""
    return f"{safe(extractor.lower())}:{safe(identifier)}"


def narration_id(video: str, source: str, start: float) -> str:
    """The id of a narration: its video, its source of text and its start in milliseconds."""
    return f"{video}@{safe(source)}@{round(start * 1000):09d}"


def document_id(identifier: str) -> str:
    """The id of a document: `document:<id>`, made safe."""
    return f"document:{safe(identifier)}"
