"""What can be chosen about a demo world."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class WorldSettings(BaseModel):
    """A world is a function of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=1, ge=0)
    videos: int = Field(default=24, ge=1)
    noise: float = Field(default=0.5, ge=0, le=0.9, description="share of the sentences that tell of nothing seen")
    offset: float = Field(default=2.0, ge=0, le=10, description="most seconds between saying and showing a step")
    min_duration: float = Field(default=30.0, ge=5, description="seconds")
    max_duration: float = Field(default=60.0, ge=8, description="seconds")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_duration > self.max_duration:
            raise ValueError(f"min_duration {self.min_duration} is above max_duration {self.max_duration}")
        return self
