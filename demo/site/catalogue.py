"""What the site lists and what is wrong with it: a pure function of the world.

Every video of the world is listed once. On top of that come the faults that big sites have:

    missing     an entry more: playlists, searches and the feed still link to it, its page and its file answer 404
    duplicate   an entry more: the same bytes and captions as another video, uploaded again under another id
    truncated   a video of the world whose file ends in the middle; the length announced is the length sent
    flaky       a video of the world whose file answers 503 with Retry-After for its first requests after a start

Which videos these are is decided by a digest of the ids, so that the same world has the same faults and faults are
spread over tasks. A world with fewer than four videos has fewer faults.
"""

import base64
import hashlib
from dataclasses import dataclass
from enum import StrEnum

from demo.truth import VideoSummary, World

EVERYTHING = "everything"


class Fault(StrEnum):
    """What is wrong with an entry, if anything."""

    NONE = "none"
    MISSING = "missing"
    DUPLICATE = "duplicate"
    TRUNCATED = "truncated"
    FLAKY = "flaky"


class Captions(StrEnum):
    """Which captions an entry has: none, automatic ones only, or automatic ones and a person's."""

    NONE = "none"
    AUTOMATIC = "automatic"
    BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One video as the site lists it; `source` is the video of the world whose bytes it shows."""

    id: str
    source: str
    title: str
    task: str
    duration: float
    fault: Fault
    captions: Captions


def catalogue(world: World) -> tuple[Entry, ...]:
    """Return every entry of the site in the order in which the index lists them."""
    videos = sorted(world.videos, key=lambda video: _digest("order", video.id))
    faults = dict(zip((video.id for video in videos), (Fault.FLAKY, Fault.TRUNCATED), strict=False))
    kinds = (Captions.BOTH, Captions.AUTOMATIC, Captions.NONE)
    entries = [
        _entry(video, fault=faults.get(video.id, Fault.NONE), captions=kinds[index % len(kinds)])
        for index, video in enumerate(videos)
    ]
    if len(entries) > 2:
        entries.append(_again(entries[2], Fault.DUPLICATE))
    if len(entries) > 4:
        entries.append(_again(entries[3], Fault.MISSING))
    return tuple(sorted(entries, key=lambda entry: _digest("list", entry.id)))


def playlists(entries: tuple[Entry, ...]) -> dict[str, tuple[Entry, ...]]:
    """Return the site's playlists by id: one of everything, and one for each task."""
    lists: dict[str, tuple[Entry, ...]] = {EVERYTHING: entries}
    for task in sorted({entry.task for entry in entries}):
        lists[task.replace(" ", "-")] = tuple(entry for entry in entries if entry.task == task)
    return lists


def _entry(video: VideoSummary, *, fault: Fault, captions: Captions) -> Entry:
    return Entry(
        id=video.id,
        source=video.id,
        title=video.title,
        task=video.task,
        duration=video.duration,
        fault=fault,
        captions=captions,
    )


def _again(entry: Entry, fault: Fault) -> Entry:
    """Return an entry like `entry` under an id of its own."""
    name = base64.urlsafe_b64encode(_digest(fault, entry.id)).decode()[:11]
    return Entry(
        id=name,
        source=entry.source,
        title=entry.title,
        task=entry.task,
        duration=entry.duration,
        fault=fault,
        captions=entry.captions,
    )


def _digest(purpose: str, video_id: str) -> bytes:
    return hashlib.sha256(f"{purpose}:{video_id}".encode()).digest()
