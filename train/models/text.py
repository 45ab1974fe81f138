"""The text tower of MIL-NCE (Miech et al., CVPR 2020): word vectors, one layer a word, max over words, one layer.

    tokens (..., words) -> embedding -> fc1 -> ReLU -> max over words -> fc2 -> (..., embedding)

Token 0 is padding and takes no part in the maximum. In the authors' release it does, so that a sentence's embedding
depends on how much it was padded; `padding_in_max=True` restores that for their weights.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sayso.config import Settings

PADDING = 0


class TextSettings(Settings):
    """The shape of the text tower and where its word vectors come from."""

    hidden: int = Field(2048, ge=1, description="channels a word has before the maximum")
    max_words: int = Field(20, ge=1, description="words of a narration that are read; the rest is cut off")
    vectors: Path | None = Field(
        None,
        description="file of word vectors (frozen): word2vec binary or text, GloVe text, or npz with words and vecs; "
        "without it vectors are learnt from scratch",
    )
    said_only: bool = Field(
        False,
        description="of `vectors` take only words that the narrations say, `min_count` times: of millions of words "
        "few are ever looked up, and all would lie on every accelerator and in every checkpoint",
    )
    word_dim: int = Field(300, ge=1, description="size of a word vector learnt from scratch")
    min_count: int = Field(
        1,
        ge=1,
        description="a word learnt from scratch, or with `said_only`, occurs at least so often in the narrations",
    )
    padding_in_max: bool = Field(False, description="let padding take part in the maximum, as the release does")


def max_over_words(hidden: Tensor, tokens: Tensor, *, padding: bool) -> Tensor:
    """(..., words, D), none below 0, of tokens (..., words) -> (..., D); `padding` lets padding take part."""
    if not padding:
        # Nothing is below 0, so a 0 never wins against a word.
        hidden = hidden.masked_fill((tokens == PADDING).unsqueeze(-1), 0.0)
    return hidden.amax(dim=-2)


class WordVectors(nn.Module):
    """What text towers begin with: a vector for each word of the vocabulary."""

    def __init__(self, words: int, word_dim: int, *, frozen: bool) -> None:
        """`words` counts the vocabulary's rows with the padding row 0."""
        super().__init__()
        self.word_embd = nn.Embedding(words, word_dim, padding_idx=PADDING)
        self.word_embd.weight.requires_grad_(not frozen)

    def set_vectors(self, vectors: Tensor) -> None:
        """Copy given word vectors (words, word_dim) in, the padding row first."""
        with torch.no_grad():
            self.word_embd.weight.copy_(vectors)


class TextTower(WordVectors):
    """Embeds bags of words; modules carry the names of the released weights (word_embd, fc1, fc2)."""

    def __init__(self, settings: TextSettings, *, words: int, word_dim: int, embedding: int, frozen: bool) -> None:
        """`words` counts the vocabulary's rows with the padding row 0."""
        super().__init__(words, word_dim, frozen=frozen)
        self.padding_in_max = settings.padding_in_max
        self.fc1 = nn.Linear(word_dim, settings.hidden)
        self.fc2 = nn.Linear(settings.hidden, embedding)

    def forward(self, tokens: Tensor) -> Tensor:
        """Integer (..., words) -> (..., embedding), not normalised; a sentence of padding only gives fc2's bias."""
        hidden = F.relu(self.fc1(self.word_embd(tokens)))
        return self.fc2(max_over_words(hidden, tokens, padding=self.padding_in_max))  # type: ignore[no-any-return]
