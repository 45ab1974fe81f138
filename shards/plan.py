"""From narrations to a plan: which clips go into which shard.

    kept narrations -> samples (window, bag of candidates) -> split by video -> videos in hash order -> shards

A plan is a pure function of its rows, whatever their order. Videos stand in the order of a hash, so that a shard
mixes them, and each lies whole in one shard where it fits: a shard opens few proxies, and removing a video touches
few shards. What is planned stays: narrations that come later go into new shards, and a video's split is a function of
its id alone, so growth never moves it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field, model_validator

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.config import Settings
from sayso.errors import ConfigError
from sayso.ids import safe
from sayso.root import Root
from sayso.rows import Candidate, Media, Narration, Plan, PlannedSample, Video
from shards.windows import nearest, widen

SPLITS = ("train", "val", "test")
_JSON_BYTES = 3000
"""A sample's JSON and its two tar headers, roughly: enough to estimate a shard's size."""
_LEAD_SECONDS = 1.0
"""A clip begins up to one key-frame interval before its window."""


class ShardSettings(Settings):
    """How narrations become shards. All of it is fixed by the first plan of an export."""

    export: str = Field("clips", pattern=r"^[A-Za-z0-9_-]+$", description="name of the export, a folder under shards/")
    samples_per_shard: int = Field(1000, ge=1, description="most samples in a shard")
    shard_bytes: int = Field(500_000_000, ge=1, description="most bytes in a shard, estimated from the proxies")
    min_window: float = Field(5.0, gt=0, description="least length of a clip's window, in seconds")
    max_window: float = Field(60.0, gt=0, description="most length of a clip's window, in seconds")
    candidates: int = Field(8, ge=1, description="narrations kept in a sample's bag, the anchor among them")
    val: float = Field(0.05, ge=0, lt=1, description="share of the videos in split val")
    test: float = Field(0.05, ge=0, lt=1, description="share of the videos in split test")

    @model_validator(mode="after")
    def _consistent(self) -> ShardSettings:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, the rest is train")
        if self.max_window < self.min_window:
            raise ValueError("max_window must not be below min_window")
        return self


@dataclass(frozen=True)
class Proposal:
    """What planning would add: shards, seconds of video in the windows, estimated bytes, narrations left out."""

    plans: list[Plan]
    seconds: float = 0.0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def samples(self) -> int:
        """Samples in all new shards."""
        return sum(len(plan.samples) for plan in self.plans)


def hash64(text: str) -> int:
    """A 64-bit hash of a text that is the same everywhere and for ever."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def split_of(video_id: str, settings: ShardSettings) -> str:
    """The split of a video: a function of its id and the shares alone."""
    place = hash64(f"split:{video_id}") / 2**64
    if place < settings.test:
        return "test"
    return "val" if place < settings.test + settings.val else "train"


def sample_key(narration: Narration) -> str:
    """The key of a narration's sample in its tar: no dots, sorted by video and time, no two alike."""
    mark = hashlib.sha256(narration.narration_id.encode()).hexdigest()[:12]
    return f"{safe(narration.video_id)}_{round(narration.start * 1000):09d}_{mark}"


def usable(narrations: Iterable[Narration], media: Mapping[str, Media]) -> tuple[list[Narration], Counter[str]]:
    """The narrations that a clip can be cut for, and how many were left out by reason.

    Reasons: no_media (the video was never fetched), no_picture (sound only), outside_video (begins after its end).
    """
    kept: list[Narration] = []
    dropped: Counter[str] = Counter()
    for narration in narrations:
        video = media.get(narration.video_id)
        if video is None:
            dropped["no_media"] += 1
        elif video.width == 0:
            dropped["no_picture"] += 1
        elif narration.start >= video.duration:
            dropped["outside_video"] += 1
        else:
            kept.append(narration)
    return kept, dropped


def samples_of(
    narrations: Sequence[Narration], media: Media, video: Video | None, settings: ShardSettings
) -> list[PlannedSample]:
    """The samples of one video, one a narration, by time."""
    ordered = sorted(narrations, key=lambda n: (n.start, n.end, n.narration_id))
    starts, ends = [n.start for n in ordered], [n.end for n in ordered]
    bag_of = [Candidate(narration_id=n.narration_id, start=n.start, end=n.end, text=n.text) for n in ordered]
    samples = []
    for place, narration in enumerate(ordered):
        start, end = widen(
            narration.start,
            narration.end,
            least=settings.min_window,
            most=settings.max_window,
            duration=media.duration,
        )
        samples.append(
            PlannedSample(
                key=sample_key(narration),
                video_id=narration.video_id,
                start=start,
                end=end,
                language=narration.language,
                task_id=video.task_id if video else None,
                candidates=[bag_of[i] for i in nearest(starts, ends, place, settings.candidates)],
            )
        )
    return samples


def make_plan(
    narrations: Iterable[Narration],
    media: Iterable[Media],
    videos: Iterable[Video],
    settings: ShardSettings,
    existing: Iterable[Plan] = (),
    *,
    version: int = 0,
) -> list[Plan]:
    """The shards to be added to those already planned, for kept narrations of the table's `version`.

    Deterministic in the rows, whatever their order; empty where every narration is planned already.
    """
    media_of = {row.video_id: row for row in media}
    video_of = {row.video_id: row for row in videos}
    planned: set[str] = set()
    next_number = dict.fromkeys(SPLITS, 0)
    for plan in existing:
        planned.update(sample.key for sample in plan.samples)
        next_number[plan.split] = max(next_number[plan.split], int(plan.shard.rpartition("-")[2]) + 1)

    by_video: dict[str, dict[str, Narration]] = {}
    for narration in usable(narrations, media_of)[0]:
        by_video.setdefault(narration.video_id, {})[narration.narration_id] = narration
    runs: dict[str, list[list[PlannedSample]]] = {split: [] for split in SPLITS}
    for video_id in sorted(by_video, key=lambda v: (hash64(f"order:{v}"), v)):
        samples = samples_of(list(by_video[video_id].values()), media_of[video_id], video_of.get(video_id), settings)
        runs[split_of(video_id, settings)].append([sample for sample in samples if sample.key not in planned])

    plans = []
    for split in SPLITS:
        for number, shard in enumerate(_fill(runs[split], media_of, settings), next_number[split]):
            ordered = sorted(shard, key=lambda sample: (hash64(sample.key), sample.key))
            name = f"{split}-{number:06d}"
            plans.append(Plan(export=settings.export, shard=name, split=split, version=version, samples=ordered))
    return plans


def estimated_bytes(sample: PlannedSample, media: Media) -> int:
    """What a sample will take in its tar, from its video's mean bytes a second."""
    seconds = sample.end - sample.start + _LEAD_SECONDS
    return _JSON_BYTES + int(seconds * media.bytes / max(media.duration, 1.0))


def _fill(
    videos: Iterable[list[PlannedSample]], media: Mapping[str, Media], settings: ShardSettings
) -> Iterator[list[PlannedSample]]:
    """Put videos into shards one after the other; one that is too big for a shard is cut into several first."""
    shard: list[PlannedSample] = []
    size = 0
    pieces = (piece for video in videos for piece in _pieces(video, media, settings))
    for piece, piece_bytes in pieces:
        too_many = len(shard) + len(piece) > settings.samples_per_shard
        if shard and (too_many or size + piece_bytes > settings.shard_bytes):
            yield shard
            shard, size = [], 0
        shard = [*shard, *piece]
        size += piece_bytes
    if shard:
        yield shard


def _pieces(
    samples: list[PlannedSample], media: Mapping[str, Media], settings: ShardSettings
) -> Iterator[tuple[list[PlannedSample], int]]:
    piece: list[PlannedSample] = []
    size = 0
    for sample in samples:
        added = estimated_bytes(sample, media[sample.video_id])
        if piece and (len(piece) == settings.samples_per_shard or size + added > settings.shard_bytes):
            yield piece, size
            piece, size = [], 0
        piece.append(sample)
        size += added
    if piece:
        yield piece, size


def propose(root: Root, settings: ShardSettings) -> Proposal:
    """What plan_export would add, without writing anything. ConfigError where the export has another profile."""
    _check_profile(root, settings)
    table = root.table(Narration)
    version = table.version()
    if version < 0:
        return Proposal([])
    kept = [row for row in table.rows(version) if row.kept]
    media = {row.video_id: row for row in root.table(Media).rows()}
    existing = root.table(Plan).rows(export=settings.export)
    plans = make_plan(kept, media.values(), root.table(Video).rows(), settings, existing, version=version)
    samples = [sample for plan in plans for sample in plan.samples]
    return Proposal(
        plans,
        seconds=sum(sample.end - sample.start for sample in samples),
        bytes=sum(estimated_bytes(sample, media[sample.video_id]) for sample in samples),
        dropped=usable(kept, media)[1],
    )


def plan_export(root: Root, settings: ShardSettings) -> Proposal:
    """Plan the narrations that are not planned yet and append the new shards to table plans, in one commit.

    Doing it twice writes nothing the second time. The settings of an export are kept beside its shards; ConfigError
    where they differ from these, RootBusy where another plans the same export at the same time.
    """
    # Opened before the plans are looked at: of two planners that saw the same plans one is refused.
    writer = root.table(Plan).writer(f"plan:{settings.export}")
    proposal = propose(root, settings)
    if not proposal.plans:
        return proposal
    if not root.storage.exists(profile_key(settings.export)):
        root.storage.put_bytes(_profile(settings), profile_key(settings.export))
    version = proposal.plans[0].version
    marks = {MADE_BY: "plan", MADE_FROM: f"{settings.export}@{version}"}
    records = [{**plan.model_dump(), **marks} for plan in proposal.plans]
    writer.append(records)
    return proposal


def profile_key(export: str) -> str:
    """The key of the object that holds an export's settings."""
    return f"shards/{export}/export.json"


def _profile(settings: ShardSettings) -> bytes:
    return (json.dumps(settings.model_dump(), indent=1, sort_keys=True) + "\n").encode()


def _check_profile(root: Root, settings: ShardSettings) -> None:
    try:
        written = json.loads(root.storage.read(profile_key(settings.export)))
    except FileNotFoundError:
        return
    asked = settings.model_dump()
    changed = sorted(name for name in written.keys() | asked.keys() if written.get(name) != asked.get(name))
    if changed:
        differences = ", ".join(f"{name} is {written.get(name)}, not {asked.get(name)}" for name in changed)
        raise ConfigError(
            f"export {settings.export!r} was begun with other settings ({differences}); "
            "set them back, or give another export name to make a second export"
        )
