"""A video tower over frames and a text tower that meet in one space (Miech et al., CVPR 2020)."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from sayso.config import Settings
from train.models.s3dg import S3DG, S3DGSettings
from train.models.text import TextSettings, TextTower


class VideoTextSettings(Settings):
    """The two towers."""

    name: Literal["video_text"] = Field("video_text", description="S3D-G over frames, a layer over each word")
    video: S3DGSettings = Field(S3DGSettings(), description="the video tower")
    text: TextSettings = Field(TextSettings(), description="the text tower")


class VideoText(nn.Module):
    """What is left of a task once it is trained."""

    sees: ClassVar[str] = "frames"
    """The field of a batch that clips are embedded from."""

    def __init__(self, settings: VideoTextSettings, *, words: int, word_dim: int) -> None:
        """`words` counts the rows of the vocabulary with padding, `word_dim` is the size of a word vector."""
        super().__init__()
        frozen = settings.text.vectors is not None
        self.video = S3DG(**settings.video.model_dump())
        self.text = TextTower(
            settings.text, words=words, word_dim=word_dim, embedding=settings.video.embedding, frozen=frozen
        )

    def embed(self, frames: Tensor) -> Tensor:
        """Float (B, 3, T, H, W) in [0, 1] -> (B, embedding), not normalised."""
        embedding: Tensor = self.video(frames)["embedding"]
        return embedding
