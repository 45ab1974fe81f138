"""Words to numbers: a narration becomes at most `max_words` word ids, padded with 0.

The vocabulary is fixed with the model and lies beside its weights as JSON. It comes from a file of word vectors, or,
where none is given, from the narrations that are trained on. Words it does not know are left out, as in the release.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sayso.errors import InputError
from train.models.text import PADDING

WORD = re.compile(r"[\w']+")


def words_of(text: str) -> list[str]:
    """Lower-case words of a sentence; punctuation parts them, apostrophes stay inside."""
    return WORD.findall(text.lower())


class Vocabulary:
    """Word ids from 1 on; 0 is padding."""

    def __init__(self, words: Sequence[str], max_words: int) -> None:
        self.words = list(words)
        self.max_words = max_words
        self._ids = {word: index for index, word in enumerate(self.words, start=1)}

    def __len__(self) -> int:
        """Rows of an embedding table: the words and the padding row."""
        return len(self.words) + 1

    def encode(self, texts: Sequence[str]) -> Tensor:
        """N sentences -> int64 (N, max_words); the first known words of each, then padding."""
        tokens = torch.full((len(texts), self.max_words), PADDING, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids = [self._ids[word] for word in words_of(text) if word in self._ids][: self.max_words]
            tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return tokens

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps({"max_words": self.max_words, "words": self.words}, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read what `save` wrote."""
        try:
            content = json.loads(path.read_text())
            return cls(content["words"], content["max_words"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a vocabulary ({error}); it is written beside a model's weights") from error

    @classmethod
    def from_texts(cls, texts: Iterable[str], *, max_words: int, min_count: int = 1) -> "Vocabulary":
        """Every word that occurs `min_count` times, the frequent ones first, equals in order of the alphabet."""
        counts = Counter(word for text in texts for word in words_of(text))
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)), max_words)


def load_vectors(path: Path) -> tuple[list[str], Tensor]:
    """Word vectors of an npz file with arrays `words` (N,) and `vecs` (N, D).

    Returns the words and float32 (N + 1, D) with a row of zeros for padding in front.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            words, vectors = [str(word) for word in arrays["words"]], arrays["vecs"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"no word vectors in {path}: an npz file with arrays words and vecs is needed ({error})"
        ) from error
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise InputError(
            f"{path} has {len(words)} words but vectors of shape {vectors.shape}; one row a word is needed"
        )
    return words, torch.from_numpy(np.concatenate([np.zeros_like(vectors[:1]), vectors]))
