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
    word_dim: int = Field(300, ge=1, description="size of a word vector learnt from scratch")
    min_count: int = Field(1, ge=1, description="a word learnt from scratch occurs at least so often in the narrations")
    padding_in_max: bool = Field(False, description="let padding take part in the maximum, as the release does")


class TextTower(nn.Module):
    """Embeds bags of words; modules carry the names of the released weights (word_embd, fc1, fc2)."""

    def __init__(self, settings: TextSettings, *, words: int, word_dim: int, embedding: int, frozen: bool) -> None:
        """`words` counts the vocabulary's rows with the padding row 0."""
        super().__init__()
        self.padding_in_max = settings.padding_in_max
        self.word_embd = nn.Embedding(words, word_dim, padding_idx=PADDING)
        self.word_embd.weight.requires_grad_(not frozen)
        self.fc1 = nn.Linear(word_dim, settings.hidden)
        self.fc2 = nn.Linear(settings.hidden, embedding)

    def set_vectors(self, vectors: Tensor) -> None:
        """Copy given word vectors (words, word_dim) in, the padding row first."""
        with torch.no_grad():
            self.word_embd.weight.copy_(vectors)

    def forward(self, tokens: Tensor) -> Tensor:
        """Integer (..., words) -> (..., embedding), not normalised; a sentence of padding only gives fc2's bias."""
        hidden = F.relu(self.fc1(self.word_embd(tokens)))
        if not self.padding_in_max:
            # After the ReLU nothing is below 0, so a 0 never wins against a word.
            hidden = hidden.masked_fill((tokens == PADDING).unsqueeze(-1), 0.0)
        return self.fc2(hidden.amax(dim=-2))  # type: ignore[no-any-return]
