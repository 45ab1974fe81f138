"""Gated embedding units over pooled features and over words (Miech et al., ICCV 2019, arXiv:1906.03327, section 4).

    features (..., F) -> unit -> (..., embedding)
    tokens (..., words) -> word vectors -> fc -> ReLU -> max over words -> unit -> (..., embedding)
    unit(x) = normalise(y * sigmoid(gate(y))), y = fc(x)

What a clip is embedded from was computed once for whole videos by networks that are not trained here: each stream
pooled over the clip, L2-normalised, the streams side by side. So a step is a few matrix products. The gate has no batch
norm: the authors' release has one, but never calls it. Modules of a unit carry the release's names (fc, cg.fc).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sayso.config import Settings
from train.models.released import copy_strictly
from train.models.text import TextSettings, WordVectors, max_over_words


class GatedTextSettings(TextSettings):
    """The same, as wide as the authors' training command has it."""

    hidden: int = Field(4096, ge=1, description="channels a word has before the maximum")


class GatedSettings(Settings):
    """The shape of the two towers; the defaults are those of the authors' training command."""

    name: Literal["gated"] = Field("gated", description="gated embedding units over pooled features and over words")
    streams: dict[str, PositiveInt] = Field(
        {"2d": 2048, "3d": 2048}, min_length=1, description="the streams of features a clip has, and the sizes of them"
    )
    embedding: int = Field(4096, ge=1, description="size of the joint embedding")
    text: GatedTextSettings = Field(GatedTextSettings(), description="the text tower")

    @property
    def features(self) -> int:
        """How many numbers a clip is embedded from."""
        return sum(self.streams.values())


class ContextGating(nn.Module):
    """Scale each channel by a gate computed from all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> the same shape."""
        return x * torch.sigmoid(self.fc(x))


class GatedUnit(nn.Module):
    """A layer, gated by itself, and normalised to length 1."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels_in, channels)
        self.cg = ContextGating(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels_in) -> (..., channels) of length 1."""
        return F.normalize(self.cg(self.fc(x)), dim=-1)


class GatedText(WordVectors):
    """Embeds bags of words."""

    def __init__(self, settings: TextSettings, *, words: int, word_dim: int, embedding: int) -> None:
        """`words` counts the vocabulary's rows with the padding row 0."""
        super().__init__(words, word_dim, frozen=settings.vectors is not None)
        self.padding_in_max = settings.padding_in_max
        self.fc = nn.Linear(word_dim, settings.hidden)
        self.unit = GatedUnit(settings.hidden, embedding)

    def forward(self, tokens: Tensor) -> Tensor:
        """Integer (..., words) -> (..., embedding) of length 1."""
        hidden = F.relu(self.fc(self.word_embd(tokens)))
        return self.unit(max_over_words(hidden, tokens, padding=self.padding_in_max))  # type: ignore[no-any-return]


class GatedVideoText(nn.Module):
    """The two towers: what is left of a task once it is trained."""

    sees: ClassVar[str] = "features"
    """The field of a batch that clips are embedded from."""

    def __init__(self, settings: GatedSettings, *, words: int, word_dim: int) -> None:
        """`words` counts the rows of the vocabulary with padding, `word_dim` is the size of a word vector."""
        super().__init__()
        self.video = GatedUnit(settings.features, settings.embedding)
        self.text = GatedText(settings.text, words=words, word_dim=word_dim, embedding=settings.embedding)

    def embed(self, features: Tensor) -> Tensor:
        """Float (..., F), each stream of length 1 -> (..., embedding) of length 1."""
        embedding: Tensor = self.video(features)
        return embedding


_RELEASED = {"GU_video.": "video.", "GU_text.": "text.unit.", "text_pooling.": "text."}
_UNUSED = ".cg.batch_norm."


def load_howto100m_ranking(model: GatedVideoText, state_dict: Mapping[str, Tensor]) -> None:
    """Load the weights that the authors released; the word vectors, which are not among them, stay as they are.

    Strict but for the batch norms that the release never calls. InputError where the weights are of another model.
    """
    state: dict[str, Tensor] = {}
    for name, weight in state_dict.items():
        tower = next((begin for begin in _RELEASED if name.startswith(begin)), None)
        if _UNUSED not in name:
            state[_RELEASED[tower] + name.removeprefix(tower) if tower else name] = weight
    wanted = {name: weight for name, weight in model.state_dict().items() if not name.startswith("text.word_embd.")}
    copy_strictly(state, wanted, hint="the released model has embedding=6144 and text.hidden=6144")
