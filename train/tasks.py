"""A task is what a recipe trains: a model, its objective, and the fields they read of a batch.

The one loop in train/engine.py serves every task: it moves the task's fields of a batch to the device, calls the task
with them, and steps on the loss that comes back. A new kind of training is a new class here.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from sayso.config import Settings
from train.models.s3dg import S3DG, S3DGSettings
from train.models.text import TextSettings, TextTower
from train.objectives.mil_nce import MILNCE, MILNCESettings


class ModelSettings(Settings):
    """The two towers."""

    video: S3DGSettings = Field(S3DGSettings(), description="the video tower")
    text: TextSettings = Field(TextSettings(), description="the text tower")


class VideoText(nn.Module):
    """A video tower and a text tower that meet in one space: what is left of a task once it is trained."""

    def __init__(self, settings: ModelSettings, *, words: int, word_dim: int) -> None:
        """`words` counts the rows of the vocabulary with padding, `word_dim` is the size of a word vector."""
        super().__init__()
        frozen = settings.text.vectors is not None
        self.video = S3DG(**settings.video.model_dump())
        self.text = TextTower(
            settings.text, words=words, word_dim=word_dim, embedding=settings.video.embedding, frozen=frozen
        )


class MILNCETask(nn.Module):
    """Clips against bags of the narrations around them (train/objectives/mil_nce.py)."""

    fields: ClassVar[tuple[str, ...]] = ("frames", "tokens", "mask")

    def __init__(self, model: VideoText, objective: MILNCESettings) -> None:
        super().__init__()
        self.model = model
        self.objective = MILNCE(objective)

    def forward(self, frames: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """frames float (B, 3, T, H, W) in [0, 1], tokens (B, K, words), mask (B, K) -> the mean loss of this rank."""
        loss: Tensor = self.objective(self.model.video(frames)["embedding"], self.model.text(tokens), mask)
        return loss
