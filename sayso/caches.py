"""Folders of this machine for copies of what is elsewhere; all of it can be fetched again."""

import hashlib
import os
import re
import tempfile
from pathlib import Path


def is_url(place: object) -> bool:
    """Whether a place is a URL, not a path of this machine."""
    return isinstance(place, str) and "://" in place


def cache_place(kind: str) -> Path:
    """The folder for copies of one kind: under XDG_CACHE_HOME where that is set, else the system's temporary folder."""
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]).absolute() / "sayso" / kind
    return Path(tempfile.gettempdir()) / f"sayso-{os.getuid()}" / kind


def copy_of(url: str, kind: str) -> Path:
    """The folder for a copy of what is at a URL."""
    url = url.rstrip("/")
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", url)[-60:].strip("-")
    return cache_place(kind) / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:10]}"


def is_copy_of(url: str, kind: str, folder: Path) -> bool:
    """Whether a folder is that of a copy of what is at a URL, on this machine or on one whose caches lie elsewhere."""
    return folder.parts[-2:] == copy_of(url, kind).parts[-2:]
