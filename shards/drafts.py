"""From what is known of a video or a document to its samples, each with what it will take in a tar.

kept narrations of a video -> windows with their candidates      (kinds clip and audio)
the same, and its features -> the video with all its narrations  (kind features)
a document                 -> its text and its pictures          (kinds image and document)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sayso.ids import safe
from sayso.rows import Candidate, FeatureStream, Interval, PlannedSample
from shards.gather import Film, Said, Written
from shards.settings import ShardSettings
from shards.survey import sample_key, window_key
from shards.windows import along, nearest, widen

_JSON_BYTES = 3000
"""A sample's JSON and its two tar headers, roughly: enough to estimate a shard's size."""
_LEAD_SECONDS = 1.0
"""A clip begins up to one key-frame interval before its window."""
_SOUND_BYTES_A_SECOND = 8500.0
"""The sound of a proxy of the default profile, 64 kbit/s, and what lists its packets."""
_NARRATION_BYTES = 300
"""A narration and its window in a sample's JSON, roughly."""
_TAR_BLOCK = 1024
"""A member's header and what fills its last block."""


class Sized(NamedTuple):
    """A planned sample, and about how many bytes it will take in its tar."""

    sample: PlannedSample
    bytes: int


def samples_of(narrations: Sequence[Said], film: Film, settings: ShardSettings) -> list[Sized]:
    """The samples of one video, by time: one a narration, or one a long window in which anything is said."""
    ordered = _by_time(narrations)
    by_windows = {"narration": _around_narrations, "context": _along_the_video}
    rate = film.bytes / max(film.duration, 1.0)
    if settings.kind == "audio":
        rate = min(rate, _SOUND_BYTES_A_SECOND)
    return [Sized(each, _clip_bytes(each, rate)) for each in by_windows[settings.windows](ordered, film, settings)]


def features_sample(
    narrations: Sequence[Said], film: Film, streams: Sequence[FeatureStream], settings: ShardSettings
) -> Sized:
    """The sample of a video of which there are features, with all its narrations by time."""
    ordered = _by_time(narrations)
    spans = [_around(narration, film, settings) for narration in ordered]
    video_id = ordered[0].video_id
    sample = PlannedSample(
        key=safe(video_id),
        video_id=video_id,
        start=0.0,
        end=round(film.duration, 3),
        language=_language(ordered),
        task_id=film.task_id,
        candidates=[_candidate(narration) for narration in ordered],
        features=list(streams),
        windows=[Interval(start=start, end=end) for start, end in spans],
    )
    row_bytes = _NARRATION_BYTES + 2 * sum(stream.dim for stream in streams)
    return Sized(sample, _TAR_BLOCK * (1 + len(streams)) + row_bytes * len(ordered))


def _by_time(narrations: Sequence[Said]) -> list[Said]:
    return sorted(narrations, key=lambda n: (n.start, n.end, n.narration_id))


def _language(narrations: Sequence[Said]) -> str:
    """The one that most of them are in."""
    languages = Counter(said.language for said in narrations)
    return min(languages, key=lambda language: (-languages[language], language))


def _around(narration: Said, film: Film, settings: ShardSettings) -> tuple[float, float]:
    return widen(
        narration.start,
        narration.end,
        least=settings.min_window,
        most=settings.max_window,
        duration=film.duration,
    )


def _clip_bytes(sample: PlannedSample, bytes_a_second: float) -> int:
    return _JSON_BYTES + int((sample.end - sample.start + _LEAD_SECONDS) * bytes_a_second)


def document_sample(document: Written) -> Sized:
    """The sample of a document."""
    said = Candidate(narration_id=document.document_id, start=0.0, end=0.0, text=document.text)
    sample = PlannedSample(
        key=safe(document.document_id),
        video_id=document.document_id,
        start=0.0,
        end=0.0,
        language=document.language or "",
        task_id=document.task_id,
        candidates=[said],
        images=document.images,
    )
    text_bytes = len(document.text.encode())
    return Sized(sample, 2 * _TAR_BLOCK + text_bytes + sum(_TAR_BLOCK + image.bytes for image in document.images))


def _candidate(narration: Said) -> Candidate:
    return Candidate(
        narration_id=narration.narration_id,
        start=narration.start,
        end=narration.end,
        text=narration.text,
        confidence=narration.confidence,
    )


def _along_the_video(ordered: Sequence[Said], film: Film, settings: ShardSettings) -> list[PlannedSample]:
    """A narration belongs to the windows that its centre lies in; its times may reach beyond them."""
    samples = []
    for start, end in along(film.duration, length=settings.context_seconds, stride=settings.context_stride):
        inside = [said for said in ordered if start <= _centre(said, film) < end]
        if not inside:
            continue
        samples.append(
            PlannedSample(
                key=window_key(inside[0].video_id, start, end),
                video_id=inside[0].video_id,
                start=start,
                end=end,
                language=_language(inside),
                task_id=film.task_id,
                candidates=[_candidate(said) for said in inside],
            )
        )
    return samples


def _centre(narration: Said, film: Film) -> float:
    """The centre of a narration, inside the video also where what is said goes on behind its end."""
    return min((narration.start + narration.end) / 2, film.duration - 0.001)


def _around_narrations(ordered: Sequence[Said], film: Film, settings: ShardSettings) -> list[PlannedSample]:
    starts, ends = [n.start for n in ordered], [n.end for n in ordered]
    bag_of = [_candidate(narration) for narration in ordered]
    samples = []
    for place, narration in enumerate(ordered):
        start, end = _around(narration, film, settings)
        samples.append(
            PlannedSample(
                key=sample_key(narration),
                video_id=narration.video_id,
                start=start,
                end=end,
                language=narration.language,
                task_id=film.task_id,
                candidates=[bag_of[i] for i in nearest(starts, ends, place, settings.candidates)],
            )
        )
    return samples
