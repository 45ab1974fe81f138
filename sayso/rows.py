"""The rows of every table, written in one place.

A table's Delta schema is derived from its model (sayso/arrow.py), so a column is declared once, here.
Times are float seconds from the container's start, [start, end). Ids are safe as object keys.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


class Part(BaseModel):
    """A value inside a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredObject(Part):
    """An object that a row vouches for: its key under the root, its SHA-256 in hex and its size."""

    key: str
    sha256: str
    bytes: int


class Row(Part):
    """A row of a table. `key` names the columns that tell rows apart."""

    table: ClassVar[str]
    key_columns: ClassVar[tuple[str, ...]]

    def objects(self) -> list[StoredObject]:
        """The objects that this row vouches for."""
        return []


class Video(Row):
    """A video worth fetching."""

    table: ClassVar[str] = "videos"
    key_columns: ClassVar[tuple[str, ...]] = ("video_id",)

    video_id: str
    url: str
    title: str = ""
    duration: float | None = None
    language: str | None = None
    licence: str | None = None
    channel: str | None = None
    task_id: str | None = None
    rank: int | None = None
    found_by: str = ""
    found_at: datetime = Field(default_factory=now)


class CaptionTrack(Part):
    """Timed text that came with a video: `subtitle` was written by people, `auto` by a machine."""

    kind: Literal["subtitle", "auto"]
    language: str
    format: Literal["srt", "vtt", "json3"]
    key: str
    sha256: str
    bytes: int


class Interval(Part):
    """A stretch of time [start, end), in seconds."""

    start: float
    end: float


class SourceFacts(Part):
    """What the fetched file was before it was normalised."""

    sha256: str
    bytes: int
    container: str
    video_codec: str | None = None
    audio_codec: str | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    duration: float
    fetched_with: str = ""


class Media(Row):
    """A fetched, normalised video. `width` is 0 where the source has sound only."""

    table: ClassVar[str] = "media"
    key_columns: ClassVar[tuple[str, ...]] = ("video_id",)

    video_id: str
    key: str
    sha256: str
    bytes: int
    duration: float
    width: int
    height: int
    fps: float
    audio: bool
    still: list[Interval] = Field(default_factory=list, description="where the picture does not change")
    captions: list[CaptionTrack] = Field(default_factory=list)
    originals: list[StoredObject] = Field(default_factory=list, description="the fetched files, where they are kept")
    source: SourceFacts
    normalised_with: str = Field("", description="the program that made the proxy, and its version")

    def objects(self) -> list[StoredObject]:
        """The proxy, the caption files and the originals."""
        proxy = StoredObject(key=self.key, sha256=self.sha256, bytes=self.bytes)
        captions = [StoredObject(key=c.key, sha256=c.sha256, bytes=c.bytes) for c in self.captions]
        return [proxy, *captions, *self.originals]


class Word(Part):
    """A word with its time; `confidence` is a probability, where the source gives one."""

    start: float
    end: float
    text: str
    confidence: float | None = None


class Span(Part):
    """A stretch of timed text. `kind` is sound for `[Music]` and the like, scene for descriptions."""

    start: float
    end: float
    text: str
    words: list[Word] = Field(default_factory=list)
    speaker: str | None = None
    kind: Literal["speech", "sound", "scene"] = "speech"
    confidence: float | None = None
    no_speech: float | None = Field(default=None, description="probability that nothing is said here")
    compression: float | None = Field(default=None, description="gzip ratio of the text; high where it loops")


class Transcript(Row):
    """One source of timed text of a video: asr:<model>, subtitle:<lang> or auto:<lang>."""

    table: ClassVar[str] = "transcripts"
    key_columns: ClassVar[tuple[str, ...]] = ("video_id", "source")

    video_id: str
    source: str
    language: str
    language_confidence: float | None = None
    speech_seconds: float = Field(description="seconds in which somebody speaks")
    spans: list[Span]


class Narration(Row):
    """A sentence that may describe what is seen. Those not kept say why."""

    table: ClassVar[str] = "narrations"
    key_columns: ClassVar[tuple[str, ...]] = ("narration_id",)

    narration_id: str
    video_id: str
    start: float
    end: float
    text: str
    source: str
    language: str
    confidence: float | None = None
    kept: bool
    reason: str = ""


class Candidate(Part):
    """A narration of a sample; times are seconds of the source video, `confidence` as table narrations has it."""

    narration_id: str
    start: float
    end: float
    text: str
    confidence: float | None = None


PLACE = "<image>"
"""Stands in the text of a page or a document where a picture stood."""


class Page(Row):
    """A text with pictures worth fetching: a captioned picture, a sequence of pictures, or an interleaved page.

    The text has one `<image>` place for each picture, in their order; `images` are http(s) or file URLs.
    """

    table: ClassVar[str] = "pages"
    key_columns: ClassVar[tuple[str, ...]] = ("document_id",)

    document_id: str
    text: str
    images: list[str]
    language: str | None = None
    licence: str | None = None
    task_id: str | None = None
    found_by: str = ""
    found_at: datetime = Field(default_factory=now)


class Picture(StoredObject):
    """A picture of a document, as our own JPEG: its size in pixels, and where it came from."""

    width: int
    height: int
    url: str


class Document(Row):
    """A page whose pictures are here. Places of pictures that could not be had are gone from its text."""

    table: ClassVar[str] = "documents"
    key_columns: ClassVar[tuple[str, ...]] = ("document_id",)

    document_id: str
    text: str = Field(description="with one `<image>` place for each picture, in their order")
    images: list[Picture]
    lost: list[str] = Field(description="pictures that could not be had: reason, a space, URL")
    language: str | None = None
    licence: str | None = None
    task_id: str | None = None
    normalised_with: str = Field("", description="the program that made the pictures, and its version")

    def objects(self) -> list[StoredObject]:
        """The pictures."""
        return [StoredObject(key=image.key, sha256=image.sha256, bytes=image.bytes) for image in self.images]


class FeatureStream(StoredObject):
    """What a model makes of a video: float16 (rows, dim) as .npy, row i standing for [i / fps, (i + 1) / fps)."""

    name: str
    rows: int
    dim: int
    fps: float
    model: str = Field(description="the SHA-256 of its weights, and what it sees for a row")


class Features(Row):
    """A video as frozen models see it, one stream of rows a model. The streams of all videos are alike."""

    table: ClassVar[str] = "features"
    key_columns: ClassVar[tuple[str, ...]] = ("video_id",)

    video_id: str
    streams: list[FeatureStream]

    def objects(self) -> list[StoredObject]:
        """The rows of each stream."""
        return [StoredObject(key=stream.key, sha256=stream.sha256, bytes=stream.bytes) for stream in self.streams]


SampleKind = Literal["clip", "audio", "image", "document", "features"]


class PlannedSample(Part):
    """One sample to make.

    Of a video, the window [start, end): its candidates are the nearest narrations, the anchor first, or in an export
    of long windows all that are said in it, by time. Of a document (a text with `<image>` places), `video_id` is the
    document's id, the only candidate is its text, times are 0, and `images` are its pictures in order. Of kind features
    it is a whole video: candidates are all its kept narrations by time, `windows` what is pooled for each of them, and
    `features` what it is pooled of.
    """

    key: str
    video_id: str
    start: float
    end: float
    language: str
    task_id: str | None = None
    candidates: list[Candidate]
    images: list[StoredObject] | None = None
    features: list[FeatureStream] | None = None
    windows: list[Interval] | None = None


class Plan(Row):
    """A shard to be made: everything that its bytes depend on, but the proxies themselves."""

    table: ClassVar[str] = "plans"
    key_columns: ClassVar[tuple[str, ...]] = ("export", "shard")

    export: str
    shard: str
    split: str
    version: int = Field(description="version of the table that was planned: narrations, or documents")
    samples: list[PlannedSample]
    kind: SampleKind | None = Field(default=None, description="what the samples are; clips where nothing is said")


class Shard(Row):
    """A published tar and its index."""

    table: ClassVar[str] = "shards"
    key_columns: ClassVar[tuple[str, ...]] = ("export", "shard")

    export: str
    shard: str
    split: str
    version: int
    key: str
    sha256: str
    bytes: int
    index_key: str
    index_sha256: str
    index_bytes: int
    samples: int
    seconds: float
    video_ids: list[str]

    def objects(self) -> list[StoredObject]:
        """The tar and its index."""
        return [
            StoredObject(key=self.key, sha256=self.sha256, bytes=self.bytes),
            StoredObject(key=self.index_key, sha256=self.index_sha256, bytes=self.index_bytes),
        ]


FailureKind = Literal["skip", "retry", "permanent", "poison", "bug", "again"]


class Failure(Row):
    """A row that was dropped or could not be done. The newest row of a (stage, id) counts.

    Kind `again` takes back what was said before: somebody asked for the row to be tried again.
    """

    table: ClassVar[str] = "failures"
    key_columns: ClassVar[tuple[str, ...]] = ("stage", "id", "attempts")

    stage: str
    id: str
    kind: FailureKind
    reason: str
    message: str
    attempts: int = Field(description="attempts in a row that ended for this reason")
    when: datetime = Field(default_factory=now)
    not_before: datetime | None = None


class ClassCount(Part):
    """How many rows failed for a reason."""

    reason: str
    count: int


class Run(Row):
    """Figures of a running stage, every few seconds; `finished` marks the last of a run."""

    table: ClassVar[str] = "runs"
    key_columns: ClassVar[tuple[str, ...]] = ("run_id", "stage", "time")

    run_id: str
    stage: str
    time: datetime = Field(default_factory=now)
    elapsed: float = Field(description="seconds since the stage began in this run")
    total: int
    done: int
    failed: int
    in_flight: int
    rows_per_second: float
    video_seconds: float
    video_seconds_per_second: float
    bytes_per_second: float
    finished: bool = False
    queued: int | None = Field(default=None, description="rows that wait for a worker")
    workers: int | None = Field(default=None, description="workers that may take this stage's rows")
    failed_by_class: list[ClassCount] | None = None


class Forgotten(Row):
    """A video or document that was removed and never comes back, nor another file of the same bytes."""

    table: ClassVar[str] = "forgotten"
    key_columns: ClassVar[tuple[str, ...]] = ("id",)

    id: str
    source_sha256: str | None = Field(default=None, description="of the fetched file, where it was fetched")
    reason: str = ""
    when: datetime = Field(default_factory=now)


TABLES: tuple[type[Row], ...] = (
    Video, Media, Transcript, Narration, Features, Page, Document, Plan, Shard, Failure, Run, Forgotten,
)  # fmt: skip
