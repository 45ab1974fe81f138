"""From narrations to a plan: which clips go into which shard.

    kept narrations -> samples (window, bag of candidates) -> split by video -> videos in hash order -> shards

A plan is a pure function of its rows, whatever their order. Videos stand in the order of a hash, so that a shard
mixes them, and each lies whole in one shard where it fits: a shard opens few proxies, and removing a video touches
few shards. What is planned stays: narrations that come later go into new shards, and a video's split is a function of
its id alone, so growth never moves it. Of videos that are made of the same bytes one is planned (shards/survey.py).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, model_validator

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.config import Settings
from sayso.errors import ConfigError
from sayso.root import Root
from sayso.rows import Candidate, Failure, Narration, Plan, PlannedSample, SampleKind
from sayso.sealed import SEAL, sealed_json
from shards import gather
from shards.gather import Film, Planned, Said
from shards.survey import sample_key, survey, unusable, window_key
from shards.windows import along, nearest, widen

PLAN = "plan"
"""The name of planning in the tables, where others have a stage's."""
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
    kind: SampleKind = Field("clip", description="what the samples are: clip, audio, image or document")
    windows: Literal["narration", "context"] = Field(
        "narration",
        description="narration: a window around each narration; context: long windows along the video, each with all "
        "narrations in it",
    )
    min_window: float = Field(5.0, gt=0, description="least length of a window around a narration, in seconds")
    max_window: float = Field(60.0, gt=0, description="most length of a window around a narration, in seconds")
    candidates: int = Field(8, ge=1, description="narrations kept in a sample's bag, the anchor among them")
    context_seconds: float = Field(64.0, gt=0, description="length of a long window, in seconds")
    context_stride: float = Field(64.0, gt=0, description="seconds from one long window to the next")
    val: float = Field(0.05, ge=0, lt=1, description="share of the videos in split val")
    test: float = Field(0.05, ge=0, lt=1, description="share of the videos in split test")

    @model_validator(mode="after")
    def _consistent(self) -> ShardSettings:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, the rest is train")
        if self.max_window < self.min_window:
            raise ValueError("max_window must not be below min_window")
        if self.context_stride > self.context_seconds:
            raise ValueError("context_stride must not be above context_seconds, or parts of the video are left out")
        return self


@dataclass(frozen=True)
class Proposal:
    """What planning would add: shards, seconds of video in the windows, estimated bytes.

    And what it leaves out: narrations by reason, and videos that are copies, each with the one that stays.
    """

    plans: list[Plan]
    seconds: float = 0.0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    copies: dict[str, str] = field(default_factory=dict)

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


def samples_of(narrations: Sequence[Said], film: Film, settings: ShardSettings) -> list[PlannedSample]:
    """The samples of one video, by time: one a narration, or one a long window in which anything is said."""
    ordered = sorted(narrations, key=lambda n: (n.start, n.end, n.narration_id))
    by_windows = {"narration": _around_narrations, "context": _along_the_video}
    return by_windows[settings.windows](ordered, film, settings)


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
        languages = Counter(said.language for said in inside)
        samples.append(
            PlannedSample(
                key=window_key(inside[0].video_id, start, end),
                video_id=inside[0].video_id,
                start=start,
                end=end,
                language=min(languages, key=lambda language: (-languages[language], language)),
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
        start, end = widen(
            narration.start,
            narration.end,
            least=settings.min_window,
            most=settings.max_window,
            duration=film.duration,
        )
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


def make_plan(
    narrations: Iterable[Said],
    media: Mapping[str, Film],
    settings: ShardSettings,
    planned: Planned | None = None,
    *,
    version: int = 0,
) -> list[Plan]:
    """The shards to be added to what is planned already, for kept narrations of the table's `version`.

    Deterministic in the rows, whatever their order; empty where every narration is planned already. Of a video, all
    narrations are needed where one is new: those planned stand in the bags of others.
    """
    planned = planned or Planned()
    by_video: dict[str, dict[str, Said]] = {}
    for narration in narrations:
        if not unusable(narration.start, media.get(narration.video_id)):
            by_video.setdefault(narration.video_id, {})[narration.narration_id] = narration
    runs: dict[str, list[list[PlannedSample]]] = {split: [] for split in SPLITS}
    for video_id in sorted(by_video, key=lambda v: (hash64(f"order:{v}"), v)):
        samples = samples_of(list(by_video.pop(video_id).values()), media[video_id], settings)
        runs[split_of(video_id, settings)].append([sample for sample in samples if sample.key not in planned.keys])

    plans = []
    for split in SPLITS:
        for number, shard in enumerate(_fill(runs[split], media, settings), planned.next_number.get(split, 0)):
            ordered = sorted(shard, key=lambda sample: (hash64(sample.key), sample.key))
            name = f"{split}-{number:06d}"
            plans.append(
                Plan(
                    export=settings.export,
                    shard=name,
                    split=split,
                    version=version,
                    samples=ordered,
                    kind=settings.kind,
                )
            )
    return plans


def estimated_bytes(sample: PlannedSample, film: Film) -> int:
    """What a sample will take in its tar, from its video's mean bytes a second."""
    seconds = sample.end - sample.start + _LEAD_SECONDS
    return _JSON_BYTES + int(seconds * film.bytes / max(film.duration, 1.0))


def _fill(
    videos: Iterable[list[PlannedSample]], media: Mapping[str, Film], settings: ShardSettings
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
    samples: list[PlannedSample], media: Mapping[str, Film], settings: ShardSettings
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
    planned = gather.planned(root, settings.export)
    if planned.keys:
        _check_profile(root, settings)
    version = root.table(Narration).version()
    if version < 0:
        return Proposal([])
    media = gather.films(root)
    # Long windows that are planned are not cut anew for what is said later in them.
    stays = planned.videos if settings.windows == "context" else frozenset[str]()
    found = survey(gather.anchors(root, version), media, planned, stays)
    plans = make_plan(gather.said(root, version, found.videos), media, settings, planned, version=version)
    samples = [sample for plan in plans for sample in plan.samples]
    return Proposal(
        plans,
        seconds=sum(sample.end - sample.start for sample in samples),
        bytes=sum(estimated_bytes(sample, media[sample.video_id]) for sample in samples),
        dropped=found.dropped,
        copies=found.copies,
    )


def plan_export(root: Root, settings: ShardSettings) -> Proposal:
    """Plan the narrations that are not planned yet, and note the videos that are left out for being copies.

    Doing it twice writes nothing the second time. The settings of an export are kept beside its shards; ConfigError
    where shards are planned with others than these, RootBusy where another plans the same export at the same time.

    - before the settings are kept: nothing was written;
    - after that: no shard is planned, so nothing is bound to these settings, and the next planning puts its own there;
    - after the plans, which are one commit: shards and settings belong together, and the next planning finds the same
      copies again, as their narrations are still in no shard, and notes them.
    """
    # Opened before the plans are looked at: of two planners that saw the same plans one is refused.
    writer = root.table(Plan).writer(f"plan:{settings.export}")
    proposal = propose(root, settings)
    if proposal.plans:
        _keep_profile(root, settings)
        version = proposal.plans[0].version
        marks = {MADE_BY: PLAN, MADE_FROM: f"{settings.export}@{version}"}
        writer.append([{**plan.model_dump(), **marks} for plan in proposal.plans])
    _note_copies(root, proposal.copies)
    return proposal


def left_out(root: Root) -> dict[str, Failure]:
    """The videos that planning left out, by id, each with its reason: what planning has noted in table failures."""
    rows = sorted(root.table(Failure).rows(stage=PLAN), key=lambda row: (row.when, row.attempts))
    newest = {row.id: row for row in rows}
    return {video_id: row for video_id, row in newest.items() if row.kind == "skip"}


def _note_copies(root: Root, copies: Mapping[str, str]) -> None:
    """Note in table failures those copies that are not noted yet."""
    table = root.table(Failure)
    noted = left_out(root) if copies else {}
    failures = [
        Failure(stage=PLAN, id=video_id, kind="skip", reason="duplicate", message=f"same bytes as {stays}", attempts=1)
        for video_id, stays in sorted(copies.items())
        if video_id not in noted
    ]
    table.append([{**row.model_dump(), MADE_BY: PLAN, MADE_FROM: row.id} for row in failures])


def profile_key(export: str) -> str:
    """The key of the object that holds an export's settings."""
    return f"shards/{export}/export.json"


def _keep_profile(root: Root, settings: ShardSettings) -> None:
    """Keep the settings, in place of those that a planning left that was killed before it planned anything."""
    profile = sealed_json(settings.model_dump())
    key = profile_key(settings.export)
    if not root.storage.exists(key) or root.storage.read(key) != profile:
        root.storage.put_bytes(profile, key)


def _check_profile(root: Root, settings: ShardSettings) -> None:
    try:
        written = json.loads(root.storage.read(profile_key(settings.export)))
    except FileNotFoundError:
        return
    written.pop(SEAL, None)
    # A setting that is newer than the export has had its default.
    written = ShardSettings.model_validate(written).model_dump()
    asked = settings.model_dump()
    changed = sorted(name for name in written.keys() | asked.keys() if written.get(name) != asked.get(name))
    if changed:
        differences = ", ".join(f"{name} is {written.get(name)}, not {asked.get(name)}" for name in changed)
        raise ConfigError(
            f"export {settings.export!r} was begun with other settings ({differences}); "
            "set them back, or give another export name to make a second export"
        )
