"""A published protocol: which videos it asks for, what it looks at, and the figures it reports.

    annotations -> videos asked for -> those that are there -> windows -> embeddings -> metrics

A protocol is a class here: it reads its annotation file as published, names its videos, and measures. Everything else
is the same for all: finding the videos, the model, and the report, which says on how many of how many it rests.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from sayso.errors import InputError
from train.evaluate.embed import EMBEDDING, Embedder
from train.evaluate.sight import Progress, sight_of
from train.evaluate.videos import Found, Videos

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a protocol found out. `used` of `of` are what the metrics rest on: clips or videos."""

    metrics: Figures
    used: int
    of: int
    chance: Figures = field(default_factory=dict)
    parts: dict[str, Figures] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Protocol(ABC):
    """One published protocol over one annotation file."""

    name: ClassVar[str]
    unit: ClassVar[str]
    """What is counted: clips or videos."""
    windows: ClassVar[int] = 10
    """How many windows of a clip it looks at, unless told otherwise."""
    output: ClassVar[str] = EMBEDDING
    """What of a model's outputs it takes."""

    @classmethod
    @abstractmethod
    def read(cls, annotations: Path) -> Self:
        """Read the annotations as published. InputError names what is wrong where."""

    @abstractmethod
    def video_ids(self) -> list[str]:
        """The videos it asks for, as the annotations name them."""

    def looks(self, windows: int | None) -> int:
        """How many windows of a clip are looked at, given what was asked for. ConfigError where that cannot be."""
        return windows or self.windows

    @abstractmethod
    def measure(self, videos: Videos, embedder: Embedder, windows: int, progress: Progress) -> Measured:
        """Look at what is there and compute the figures. InputError where that is too little for any."""


class Report(BaseModel):
    """A protocol's figures (R@K, accuracy and recall in %), and what they rest on."""

    model_config = ConfigDict(frozen=True)

    protocol: str
    metrics: Figures
    chance: Figures
    """The same figures for a guess, where there is an obvious one."""
    parts: dict[str, Figures]
    """Figures a split, a task, or under another rule."""
    unit: str
    used: int
    of: int
    videos: Found
    missing: dict[str, str]
    """Videos that are not there, and why."""
    notes: list[str]
    windows: int
    size: int | None
    """The side of the pictures that were looked at, in px; none where features were."""
    annotations: str
    root: str
    model: str
    step: int

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return self.model_dump(mode="json")


def evaluate(
    protocol: Protocol,
    embedder: Embedder,
    videos: Videos,
    *,
    windows: int | None = None,
    annotations: Path,
    model: str,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Measure a model by a protocol on the videos that are there.

    Raises InputError where none is there or the proxies are not fit for the model, CorruptObject for broken ones,
    WorkFailed for a model whose embeddings are no numbers.
    """
    sight = sight_of(embedder, output=protocol.output)
    windows = sight.looks(protocol.looks(windows))
    videos = sight.fit(videos)
    if not videos.there:
        raise InputError(f"{annotations}: none of its {videos.found.of} videos is there ({videos.why_not})")
    found = protocol.measure(videos, embedder, windows, progress)
    return Report(
        protocol=protocol.name,
        metrics=found.metrics,
        chance=found.chance,
        parts=found.parts,
        unit=protocol.unit,
        used=found.used,
        of=found.of,
        videos=videos.found,
        missing=dict(videos.missing),
        notes=found.notes,
        windows=windows,
        size=sight.size,
        annotations=str(annotations),
        root=videos.root.url,
        model=model,
        step=embedder.trained.card.step,
    )
