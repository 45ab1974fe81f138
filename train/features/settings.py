"""Which models look at the videos, how often and at what."""

from typing import Literal

from pydantic import Field, model_validator

from sayso.config import Settings
from sayso.errors import ConfigError

Kind = Literal["s3d", "transformers", "onnx"]
Colour = tuple[float, float, float]


class StreamSettings(Settings):
    """One model, and how often it looks. What is not given is as the model has it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="the stream's name, and of its files in shards")
    fps: float = Field(gt=0, description="rows a second")
    kind: Kind = Field(description="s3d looks at windows of frames, transformers and onnx at one frame a row")
    model: str | None = Field(
        None,
        description="s3d: a file with weights released with MIL-NCE (HowTo100M), or a folder of `sayso train`; "
        "transformers: a folder or a name on the hub, as AutoModel takes them; onnx: a file. Without: not computed",
    )
    frames: int | None = Field(None, ge=1, description="s3d: frames of a window; 32, or what it was trained with")
    frame_fps: float | None = Field(
        None, gt=0, description="s3d: frames a second within a window; 10, or what it was trained with"
    )
    size: int | None = Field(None, ge=1, description="side of the square in the middle that it sees, in px")
    short_side: int | None = Field(None, ge=1, description="short side before that is cut out, in px")
    mean: Colour | None = Field(None, description="transformers, onnx: mean of red, green, blue in [0, 1]")
    std: Colour | None = Field(None, description="transformers, onnx: standard deviation of the same")
    batch: int = Field(4, ge=1, description="rows that are computed together; more on a GPU")

    @model_validator(mode="after")
    def _consistent(self) -> "StreamSettings":
        foreign = ("mean", "std") if self.kind == "s3d" else ("frames", "frame_fps")
        given = [name for name in foreign if getattr(self, name) is not None]
        if given:
            raise ValueError(f"kind {self.kind} has no {' and no '.join(given)}")
        if self.size and self.short_side and self.short_side < self.size:
            raise ValueError(f"short_side {self.short_side} is below size, {self.size}")
        return self


class FeaturesSettings(Settings):
    """The features of videos; `sayso run` computes them where a stream has a model."""

    streams: list[StreamSettings] = Field(
        [StreamSettings(name="2d", fps=1.0, kind="transformers"), StreamSettings(name="3d", fps=1.5, kind="s3d")],
        description="what is computed of each video; those without a model are left out",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="cuda asks for a GPU a worker; auto is cuda where the machine that begins the run has one"
    )
    offline: bool = Field(False, description="never ask the hub for a model")
    seconds_at_least: float = Field(300.0, gt=0, description="wall-clock seconds that any video may take")
    seconds_per_second: float = Field(60.0, gt=0, description="further wall-clock seconds for each second of video")

    @model_validator(mode="after")
    def _distinct(self) -> "FeaturesSettings":
        names = [stream.name for stream in self.streams]
        if len(set(names)) < len(names):
            raise ValueError(f"streams {', '.join(names)} must have different names")
        return self

    @property
    def wanted(self) -> list[StreamSettings]:
        """The streams that have a model, by name."""
        return sorted((stream for stream in self.streams if stream.model), key=lambda stream: stream.name)

    def check(self) -> None:
        """ConfigError with the fix where there is nothing to compute."""
        if not self.wanted:
            raise ConfigError(
                "features.streams: no stream has a model; give one, for example "
                "'features.streams=[{name: 3d, fps: 1.5, kind: s3d, model: s3d_howto100m.pth}]'"
            )
