"""A task is what a recipe trains: a model, its objective, and the fields they read of a batch.

The one loop in train/engine.py serves every task: it moves the task's fields of a batch to the device, calls the task
with them, and steps on the loss that comes back. Models and objectives are chosen by their names: a new one is a
settings class with a `name` of its own in the choices here, and what is built from it.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from sayso.config import named
from sayso.errors import ConfigError
from shards.clips import Clip
from train.models.gated import GatedSettings, GatedVideoText
from train.models.video_text import VideoText, VideoTextSettings
from train.objectives.mil_nce import MILNCE, MILNCESettings
from train.objectives.ranking import Ranking, RankingSettings

ModelSettings = Annotated[VideoTextSettings | GatedSettings, Field(discriminator="name"), named("video_text")]
ObjectiveSettings = Annotated[MILNCESettings | RankingSettings, Field(discriminator="name"), named("mil_nce")]
Model = VideoText | GatedVideoText


def make_model(settings: VideoTextSettings | GatedSettings, *, words: int, word_dim: int) -> Model:
    """The model with fresh weights; `words` counts the vocabulary with padding, `word_dim` sizes a word vector."""
    if isinstance(settings, GatedSettings):
        return GatedVideoText(settings, words=words, word_dim=word_dim)
    return VideoText(settings, words=words, word_dim=word_dim)


def make_objective(settings: MILNCESettings | RankingSettings) -> MILNCE | Ranking:
    """The objective of these settings."""
    return Ranking(settings) if isinstance(settings, RankingSettings) else MILNCE(settings)


def check_clips(settings: VideoTextSettings | GatedSettings, clips: Iterable[tuple[str, Clip]]) -> dict[str, str]:
    """What made the features of exports, of each of which there is the URL and a clip; nothing of frames.

    ConfigError where a clip does not have what the model looks at, or two have features of other makers.
    """
    found: dict[str, str] = {}
    for url, clip in clips:
        check_clip(settings, clip, url)
        for name, origin in clip.get("origins", {}).items():
            if found.setdefault(name, origin) != origin:
                raise ConfigError(f"the features {name} of {url} are of {origin}, and those before it of {found[name]}")
    return found


def check_clip(settings: VideoTextSettings | GatedSettings, clip: Clip, url: str) -> None:
    """ConfigError where clips of the export at `url` do not have what the model looks at."""
    if not isinstance(settings, GatedSettings):
        if not clip["frames"].numel():
            raise ConfigError(f"model.name {settings.name} looks at frames, and {url} has none; export clips")
        return
    if "streams" not in clip:
        raise ConfigError(f"model.name gated looks at features, and {url} has none; export them with kind=features")
    # By name and size: equally many numbers of other streams would be noticed when the trained model is evaluated.
    if clip["streams"] != settings.streams:
        raise ConfigError(f"model.streams {settings.streams} are to be those of {url}, {clip['streams']}")


class Task(nn.Module):
    """Clips against the narrations around them: the towers' embeddings, compared by the objective."""

    def __init__(self, model: Model, objective: MILNCE | Ranking) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a batch that `forward` takes, in its order."""
        return self.model.sees, "tokens", "mask", "videos"

    def forward(self, seen: Tensor, tokens: Tensor, mask: Tensor, videos: Tensor) -> Tensor:
        """What clips are embedded from, tokens (B, K, words), mask (B, K), videos (B,) -> this rank's mean loss.

        frames (B, 3, T, H, W) in [0, 1] are one clip a sample, and its K narrations are a bag. features (B, K, F) are
        K clips a sample, all of one video, each with the one narration at its place.
        """
        video, text = self.model.embed(seen), self.model.text(tokens)
        if video.ndim == 3:
            videos = videos.repeat_interleave(video.shape[1])
            video, text, mask = video.flatten(0, 1), text.flatten(0, 1)[:, None], mask.reshape(-1, 1)
        loss: Tensor = self.objective(video, text, mask, videos)
        return loss
