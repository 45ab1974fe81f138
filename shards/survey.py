"""What there is to plan, and what is left out: narrations by reason, and videos that are copies of others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from sayso.ids import safe
from shards.gather import Anchor, Film, Planned, Said


def sample_key(narration: Said | Anchor) -> str:
    """The key of a narration's sample in its tar: no dots, sorted by video and time, no two alike."""
    mark = hashlib.sha256(narration.narration_id.encode()).hexdigest()[:12]
    return f"{safe(narration.video_id)}_{round(narration.start * 1000):09d}_{mark}"


def window_key(video_id: str, start: float, end: float) -> str:
    """The key of a long window's sample in its tar: no dots, sorted by video and time."""
    return f"{safe(video_id)}_{round(start * 1000):09d}-{round(end * 1000):09d}"


def unusable(start: float, film: Film | None) -> str | None:
    """Why no clip can be cut for a narration that begins at `start`; None where one can.

    Reasons: no_media (the video was never fetched), no_picture (sound only), outside_video (begins after its end).
    """
    if film is None:
        return "no_media"
    if film.width == 0:
        return "no_picture"
    return "outside_video" if start >= film.duration else None


@dataclass
class Survey:
    """What is to be planned: videos with narrations that are in no shard yet.

    `copies` are videos that are left out for having the bytes of another, each with the one that stays; `dropped`
    counts the narrations that are left out, by reason.
    """

    videos: set[str] = field(default_factory=set)
    copies: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


def survey(
    narrations: Iterable[Anchor], media: Mapping[str, Film], planned: Planned, stays: Set[str] = frozenset()
) -> Survey:
    """Look through all kept narrations, in any order. Videos in `stays` get no further samples.

    Reasons for leaving one out are those of `unusable`, and duplicate: its video is a copy.
    """
    found = Survey()
    usable: Counter[str] = Counter()
    for narration in narrations:
        reason = unusable(narration.start, media.get(narration.video_id))
        if reason:
            found.dropped[reason] += 1
            continue
        usable[narration.video_id] += 1
        if narration.video_id not in stays and sample_key(narration) not in planned.keys:
            found.videos.add(narration.video_id)
    found.copies = copies(usable, media, planned.videos)
    found.videos -= found.copies.keys()
    if found.copies:
        found.dropped["duplicate"] = sum(usable[video_id] for video_id in found.copies)
    return found


def copies(video_ids: Iterable[str], media: Mapping[str, Film], planned: Set[str]) -> dict[str, str]:
    """Of videos made of the same bytes those to leave out, each with the one that stays.

    That is one that is planned already, so that growth neither moves nor doubles a video; else the smallest id. Where
    several are planned, in a root that was made before copies were left out here, all of them stay.
    """
    stays: dict[str, str] = {}
    left_out: dict[str, str] = {}
    present = {*video_ids, *(planned & media.keys())}
    for video_id in sorted(present, key=lambda video_id: (video_id not in planned, video_id)):
        original = stays.setdefault(media[video_id].source_sha256, video_id)
        if original != video_id and video_id not in planned:
            left_out[video_id] = original
    return left_out
