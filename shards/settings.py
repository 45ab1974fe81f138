"""How an export is made: what decides its plan, and with it every byte of its shards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sayso.config import Settings
from sayso.rows import SampleKind


class ShardSettings(Settings):
    """How narrations or documents become shards. All of it is fixed by the first plan of an export."""

    export: str = Field("clips", pattern=r"^[A-Za-z0-9_-]+$", description="name of the export, a folder under shards/")
    samples_per_shard: int = Field(1000, ge=1, description="most samples in a shard")
    shard_bytes: int = Field(500_000_000, ge=1, description="most bytes in a shard, estimated from the proxies")
    kind: SampleKind = Field("clip", description="what the samples are: clip, audio, image, document or features")
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
    val: float = Field(0.05, ge=0, lt=1, description="share of the videos or documents in split val")
    test: float = Field(0.05, ge=0, lt=1, description="share of the videos or documents in split test")

    @model_validator(mode="after")
    def _consistent(self) -> ShardSettings:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, the rest is train")
        if self.max_window < self.min_window:
            raise ValueError("max_window must not be below min_window")
        if self.context_stride > self.context_seconds:
            raise ValueError("context_stride must not be above context_seconds, or parts of the video are left out")
        if self.kind == "features" and self.windows == "context":
            raise ValueError("windows of kind features are those of the narrations; leave them at narration")
        return self

    @property
    def whole_videos(self) -> bool:
        """Whether what is planned of a video is not planned anew for what is said in it later."""
        return self.windows == "context" or self.kind == "features"
