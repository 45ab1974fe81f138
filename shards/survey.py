"""What there is to plan, and what is left out: narrations or documents by reason, and copies of others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from sayso.ids import safe
from sayso.rows import SampleKind
from shards.gather import Anchor, Film, Planned, Said, Written


def sample_key(narration: Said | Anchor) -> str:
    """The key of a narration's sample in its tar: no dots, sorted by video and time, no two alike."""
    mark = hashlib.sha256(narration.narration_id.encode()).hexdigest()[:12]
    return f"{safe(narration.video_id)}_{round(narration.start * 1000):09d}_{mark}"


def window_key(video_id: str, start: float, end: float) -> str:
    """The key of a long window's sample in its tar: no dots, sorted by video and time."""
    return f"{safe(video_id)}_{round(start * 1000):09d}-{round(end * 1000):09d}"


def unusable(start: float, film: Film | None, kind: SampleKind = "clip") -> str | None:
    """Why nothing can be cut for a narration that begins at `start`; None where something can.

    Reasons: no_media (the video was never fetched), no_picture (sound only), for audio no_sound instead,
    for features no_features where they are not there yet, outside_video (begins after its end).
    """
    if film is None:
        return "no_media"
    if kind == "audio" and not film.audio:
        return "no_sound"
    if kind != "audio" and film.width == 0:
        return "no_picture"
    if kind == "features" and not film.features:
        return "no_features"
    return "outside_video" if start >= film.duration else None


@dataclass
class Survey:
    """What is to be planned: videos with narrations that are in no shard yet, each with all its usable narrations.

    `copies` are videos that are left out for having the bytes of another, each with the one that stays; `dropped`
    counts the narrations that are left out, by reason. The same of documents, each of which counts once.
    """

    videos: dict[str, int] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


def survey(
    narrations: Iterable[Anchor],
    media: Mapping[str, Film],
    planned: Planned,
    stays: Set[str] = frozenset(),
    kind: SampleKind = "clip",
) -> Survey:
    """Look through all kept narrations, in any order. Videos in `stays` get no further samples.

    Reasons for leaving one out are those of `unusable`, and duplicate: its video is a copy.
    """
    dropped, usable = Counter[str](), Counter[str]()
    new: set[str] = set()
    for narration in narrations:
        reason = unusable(narration.start, media.get(narration.video_id), kind)
        if reason:
            dropped[reason] += 1
            continue
        usable[narration.video_id] += 1
        if narration.video_id not in stays and sample_key(narration) not in planned.keys:
            new.add(narration.video_id)
    made_of = {video: media[video].source_sha256 for video in (*usable, *(planned.videos & media.keys()))}
    return _survey(new, usable, made_of, planned, dropped)


def survey_documents(documents: Iterable[Written], planned: Planned, *, single: bool) -> Survey:
    """Look through all documents, in any order; `single` wants those that had one picture, also before any was lost.

    Reasons for leaving one out: several_pictures, and duplicate: another has the same text and pictures.
    """
    dropped, usable = Counter[str](), Counter[str]()
    made_of: dict[str, str] = {}
    for document in documents:
        if single and len(document.images) + len(document.lost) > 1:
            dropped["several_pictures"] += 1
            continue
        usable[document.document_id] = 1
        parts = [document.text, *(image.sha256 for image in document.images)]
        made_of[document.document_id] = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return _survey(made_of.keys() - planned.videos, usable, made_of, planned, dropped)


def _survey(
    new: Set[str], usable: Counter[str], made_of: Mapping[str, str], planned: Planned, dropped: Counter[str]
) -> Survey:
    left_out = copies(made_of, planned.videos)
    if left_out:
        dropped["duplicate"] = sum(usable[video] for video in left_out)
    return Survey({video: usable[video] for video in new - left_out.keys()}, left_out, dropped)


def copies(made_of: Mapping[str, str], planned: Set[str]) -> dict[str, str]:
    """Of videos made of the same bytes, by their hashes, those to leave out, each with the one that stays.

    That is one that is planned already, so that growth neither moves nor doubles a video; else the smallest id. Where
    several are planned, in a root that was made before copies were left out here, all of them stay.
    """
    stays: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for video_id in sorted(made_of, key=lambda video_id: (video_id not in planned, video_id)):
        original = stays.setdefault(made_of[video_id], video_id)
        if original != video_id and video_id not in planned:
            left_out[video_id] = original
    return left_out
