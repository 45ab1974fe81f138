"""From a sample as it was read to what a model takes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import torch
from pydantic import Field, model_validator

from sayso.config import Settings
from shards.crop import Crop
from shards.decode import decode
from shards.library import RawSample
from shards.order import uniforms


class Clip(TypedDict):
    """A decoded sample. Times are seconds of the source video."""

    key: str
    video_id: str
    start: float
    end: float
    frames: torch.Tensor
    """uint8 (T, H, W, 3)"""
    narrations: list[str]
    """K candidates, the anchor first; "" where one is missing"""
    narration_mask: torch.Tensor
    """bool (K,), True where a candidate is there"""


class ClipSettings(Settings):
    """What is taken of a sample and how."""

    frames: int = Field(32, ge=1, description="frames T of a clip")
    fps: float = Field(10.0, gt=0, description="frames a second, by presentation time")
    size: int = Field(224, ge=1, description="side of the square crop, in px")
    short_side: int | None = Field(
        None, ge=1, description="short side before cropping, in px; 8/7 of size where not given"
    )
    candidates: int = Field(5, ge=1, description="narrations K in the bag of a clip")
    crop: Literal["random", "center"] = Field("random", description="where the crop lies in the picture")
    flip: bool = Field(True, description="mirror half of the clips")
    start: Literal["random", "center"] = Field("random", description="where the T frames lie in the window")

    @model_validator(mode="after")
    def _consistent(self) -> ClipSettings:
        if self.scaled_short_side < self.size:
            raise ValueError(f"short_side {self.scaled_short_side} is below the crop's size, {self.size}")
        return self

    @property
    def scaled_short_side(self) -> int:
        """The short side before cropping, in px."""
        return self.short_side or round(self.size * 8 / 7)


def make_clip(sample: RawSample, settings: ClipSettings, seed: str) -> Clip:
    """Decode a sample.

    What is random is drawn from (seed, the sample's key), not from a stream of numbers: what a clip looks like does
    not depend on who reads it. Raises CorruptObject where the sample cannot be decoded.
    """
    start_at, x, y, flip = uniforms(f"{seed}:{sample.key}:augment", 4)
    facts = sample.facts
    start = _start(facts, settings, 0.5 if settings.start == "center" else start_at)
    crop = Crop(
        size=settings.size,
        short_side=settings.scaled_short_side,
        x=0.5 if settings.crop == "center" else x,
        y=0.5 if settings.crop == "center" else y,
        flip=settings.flip and flip < 0.5,
    )
    times = [start - facts["clip_start"] + i / settings.fps for i in range(settings.frames)]
    frames = decode(sample.members["mp4"], times, crop)
    texts = [candidate["text"] for candidate in facts["candidates"][: settings.candidates]]
    missing = settings.candidates - len(texts)
    return Clip(
        key=sample.key,
        video_id=facts["video_id"],
        start=start,
        end=min(start + settings.frames / settings.fps, facts["clip_end"]),
        frames=torch.from_numpy(frames),
        narrations=texts + [""] * missing,
        narration_mask=torch.tensor([True] * len(texts) + [False] * missing),
    )


def _start(facts: Mapping[str, Any], settings: ClipSettings, share: float) -> float:
    """Where the T frames begin, in seconds of the source: at `share` of the room that the window leaves.

    Where the window is shorter than the frames they end with it, as far as the clip reaches back.
    """
    first = max(facts["start"], facts["clip_start"])
    last = min(facts["end"], facts["clip_end"]) - settings.frames / settings.fps
    return float(first + share * (last - first) if last > first else max(last, facts["clip_start"]))
