"""From narrations or documents to a plan: which samples go into which shard.

    kept narrations -> samples (window, bag of candidates) ┐
    ... and features -> samples (video, all narrations)    ┤
    documents       -> samples (text, pictures)            ┴-> split by video -> videos in hash order -> shards

A plan is a pure function of its rows, whatever their order. Videos stand in the order of a hash, so that a shard
mixes them, and each lies whole in one shard where it fits: a shard opens few proxies, and removing a video touches
few shards. What is planned stays: what comes later goes into new shards, and a video's split is a function of its id
alone, so growth never moves it. Of videos that are made of the same bytes one is planned (shards/survey.py). What is
said of videos here holds for documents too.

Shards are planned one after the other, and committed some at a time: planning again goes on behind those that are
there and ends with the same shards as in one go.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sayso.arrow import MADE_BY, MADE_FROM
from sayso.errors import ConfigError
from sayso.root import Root
from sayso.rows import Document, Failure, Narration, Plan, SampleKind
from sayso.sealed import SEAL, sealed_json
from shards import gather
from shards.drafts import Sized, document_sample, features_sample, samples_of
from shards.gather import Film, Planned, Said
from shards.settings import ShardSettings
from shards.survey import survey, survey_documents, unusable

PLAN = "plan"
"""The name of planning in the tables, where others have a stage's."""
SPLITS = ("train", "val", "test")
_SAMPLES_AT_A_TIME = 500_000
"""Samples of videos that are in memory together; the tables are read once for each so many."""
_SAMPLES_A_COMMIT = 100_000


class Proposed(NamedTuple):
    """A shard to be made, and about how many bytes it will have."""

    plan: Plan
    bytes: int


@dataclass(frozen=True)
class Proposal:
    """What planning would add: shards, made up as they are asked for and to be read once.

    And what it leaves out: narrations or documents by reason, and videos that are copies, each with the one that stays.
    """

    shards: Iterator[Proposed] = field(default_factory=lambda: iter(()))
    dropped: Counter[str] = field(default_factory=Counter)
    copies: dict[str, str] = field(default_factory=dict)


@dataclass
class Totals:
    """New shards, their samples, seconds of video in the windows, estimated bytes."""

    shards: int = 0
    samples: int = 0
    seconds: float = 0.0
    bytes: int = 0

    def add(self, proposed: Proposed) -> None:
        """Count a shard."""
        self.shards += 1
        self.samples += len(proposed.plan.samples)
        self.seconds += sum(sample.end - sample.start for sample in proposed.plan.samples)
        self.bytes += proposed.bytes


@dataclass(frozen=True)
class Summary:
    """What planning adds, in all and by split, and what it leaves out by reason."""

    total: Totals
    splits: dict[str, Totals]
    dropped: Counter[str]


def hash64(text: str) -> int:
    """A 64-bit hash of a text that is the same everywhere and for ever."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def split_of(video_id: str, settings: ShardSettings) -> str:
    """The split of a video: a function of its id and the shares alone."""
    place = hash64(f"split:{video_id}") / 2**64
    if place < settings.test:
        return "test"
    return "val" if place < settings.test + settings.val else "train"


def plan_shards(
    videos: Iterable[list[Sized]], settings: ShardSettings, planned: Planned, version: int
) -> Iterator[Proposed]:
    """Put the samples of videos, which come in the order of their hash, into shards behind those that are planned."""
    fillers = {split: _Filler(settings) for split in SPLITS}
    numbers = {split: planned.next_number.get(split, 0) for split in SPLITS}

    def proposed(split: str, shard: list[Sized]) -> Proposed:
        samples = sorted((sized.sample for sized in shard), key=lambda sample: (hash64(sample.key), sample.key))
        name = f"{split}-{numbers[split]:06d}"
        numbers[split] += 1
        plan = Plan(
            export=settings.export, shard=name, split=split, version=version, samples=samples, kind=settings.kind
        )
        return Proposed(plan, sum(sized.bytes for sized in shard))

    for samples in videos:
        new = [sized for sized in samples if sized.sample.key not in planned.keys]
        if new:
            split = split_of(new[0].sample.video_id, settings)
            yield from (proposed(split, shard) for shard in fillers[split].put(new))
    for split, filler in fillers.items():
        if filler.shard:
            yield proposed(split, filler.shard)


class _Filler:
    """Puts videos into the shards of a split one after the other."""

    def __init__(self, settings: ShardSettings) -> None:
        self.shard: list[Sized] = []
        self._bytes = 0
        self._settings = settings

    def put(self, video: list[Sized]) -> Iterator[list[Sized]]:
        """The shards that are full now. A video that is too big for a shard is cut into several pieces first."""
        for piece in self._pieces(video):
            size = sum(sized.bytes for sized in piece)
            if self.shard and self._are_too_many(len(self.shard) + len(piece), self._bytes + size):
                yield self.shard
                self.shard, self._bytes = [], 0
            self.shard += piece
            self._bytes += size

    def _pieces(self, video: list[Sized]) -> Iterator[list[Sized]]:
        piece: list[Sized] = []
        size = 0
        for sized in video:
            if piece and self._are_too_many(len(piece) + 1, size + sized.bytes):
                yield piece
                piece, size = [], 0
            piece.append(sized)
            size += sized.bytes
        yield piece

    def _are_too_many(self, samples: int, size: int) -> bool:
        return samples > self._settings.samples_per_shard or size > self._settings.shard_bytes


def propose(root: Root, settings: ShardSettings) -> Proposal:
    """What plan_export would add, without writing anything. ConfigError where the export has another profile."""
    planned = gather.planned(root, settings.export)
    if planned.keys:
        _check_profile(root, settings)
    of_documents = settings.kind in ("image", "document")
    version = root.table(Document if of_documents else Narration).version()
    if version < 0:
        return Proposal()
    return (_propose_documents if of_documents else _propose_videos)(root, settings, planned, version)


def _propose_videos(root: Root, settings: ShardSettings, planned: Planned, version: int) -> Proposal:
    of_features = settings.kind == "features"
    media = gather.films(root, features=of_features)
    stays = planned.videos if settings.whole_videos else frozenset[str]()
    found = survey(gather.anchors(root, version), media, planned, stays, settings.kind)

    def videos() -> Iterator[list[Sized]]:
        """Of a video all narrations are needed, also where one is new: those planned stand in the bags of others."""
        for some in _in_hash_order(found.videos):
            narrations = _by_video(gather.said(root, version, some), media, settings.kind)
            streams = gather.features(root, some) if of_features else {}
            for video in some:
                said, film = narrations.pop(video), media[video]
                if of_features:
                    yield [features_sample(said, film, streams.pop(video), settings)]
                else:
                    yield samples_of(said, film, settings)

    return Proposal(plan_shards(videos(), settings, planned, version), found.dropped, found.copies)


def _by_video(narrations: Iterable[Said], media: Mapping[str, Film], kind: SampleKind) -> dict[str, list[Said]]:
    """The narrations that samples can be made for, each once."""
    found: dict[str, dict[str, Said]] = {}
    for narration in narrations:
        if not unusable(narration.start, media.get(narration.video_id), kind):
            found.setdefault(narration.video_id, {})[narration.narration_id] = narration
    return {video: list(said.values()) for video, said in found.items()}


def _propose_documents(root: Root, settings: ShardSettings, planned: Planned, version: int) -> Proposal:
    found = survey_documents(gather.documents(root, version), planned, single=settings.kind == "image")

    def documents() -> Iterator[list[Sized]]:
        for some in _in_hash_order(found.videos):
            written = {document.document_id: document for document in gather.documents(root, version, some)}
            yield from ([document_sample(written.pop(document))] for document in some)

    return Proposal(plan_shards(documents(), settings, planned, version), found.dropped, found.copies)


def _in_hash_order(videos: Mapping[str, int]) -> Iterator[list[str]]:
    """Videos, which come with the number of their samples, as they are planned: as many at a time as memory takes."""
    some: list[str] = []
    samples = 0
    for video in sorted(videos, key=lambda video: (hash64(f"order:{video}"), video)):
        if some and samples + videos[video] > _SAMPLES_AT_A_TIME:
            yield some
            some, samples = [], 0
        some.append(video)
        samples += videos[video]
    if some:
        yield some


def summarise(proposal: Proposal) -> Summary:
    """Count a proposal, which is then read."""
    return _count(proposal.shards, proposal.dropped)


def _count(shards: Iterable[Proposed], dropped: Counter[str]) -> Summary:
    total, splits = Totals(), {split: Totals() for split in SPLITS}
    for proposed in shards:
        total.add(proposed)
        splits[proposed.plan.split].add(proposed)
    return Summary(total, {split: each for split, each in splits.items() if each.shards}, dropped)


def plan_export(root: Root, settings: ShardSettings) -> Summary:
    """Plan what is not planned yet, and note the videos that are left out for being copies.

    Doing it twice writes nothing the second time. The settings of an export are kept beside its shards; ConfigError
    where shards are planned with others than these, RootBusy where another plans the same export at the same time.

    - before the settings are kept: nothing was written;
    - after that: no shard is planned, so nothing is bound to these settings, and the next planning puts its own there;
    - between two commits of plans: each split has its first shards, and the next planning goes on behind them;
    - after the plans: shards and settings belong together, and the next planning finds the same copies again, as their
      narrations are still in no shard, and notes them.
    """
    # Opened before the plans are looked at: of two planners that saw the same plans one is refused.
    writer = root.table(Plan).writer(f"plan:{settings.export}")
    proposal = propose(root, settings)

    def committed() -> Iterator[Proposed]:
        for number, some in enumerate(_in_commits(proposal.shards, settings)):
            if not number:
                _keep_profile(root, settings)
            writer.append([_record(proposed.plan) for proposed in some])
            yield from some

    summary = _count(committed(), proposal.dropped)
    _note_copies(root, proposal.copies)
    return summary


def _in_commits(shards: Iterable[Proposed], settings: ShardSettings) -> Iterator[list[Proposed]]:
    """Shards as they are committed. Long windows all at once: of a video that has some, none are planned later."""
    most = None if settings.windows == "context" else _SAMPLES_A_COMMIT
    some: list[Proposed] = []
    samples = 0
    for proposed in shards:
        some.append(proposed)
        # One of features holds all narrations of a video.
        samples += sum(len(sample.windows or (sample,)) for sample in proposed.plan.samples)
        if most is not None and samples >= most:
            yield some
            some, samples = [], 0
    if some:
        yield some


def _record(plan: Plan) -> dict[str, Any]:
    return {**plan.model_dump(), MADE_BY: PLAN, MADE_FROM: f"{plan.export}@{plan.version}"}


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
