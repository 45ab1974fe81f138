"""Words to numbers: a narration becomes at most `max_words` word ids, padded with 0.

The vocabulary is fixed with the model and lies beside its weights as JSON. It comes from a file of word vectors, or,
where none is given, from the narrations that are trained on. Words it does not know are left out, as in the release.
"""

import itertools
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sayso.errors import InputError
from train.models.text import PADDING

WORD = re.compile(r"[\w']+")
_NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|[-+]?inf")
_LONGEST_WORD = 4096
_Vectors: TypeAlias = tuple[list[str], np.ndarray[Any, np.dtype[np.float32]]]


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
    """Word vectors of any size, in one of four published layouts, told apart by the file's name and first bytes.

    .npz             arrays `words` (N,) and `vecs` (N, D)
    word2vec binary  a line "N D", then N times a word, a space and D little-endian float32
    word2vec text    a line "N D", then N lines of a word and D numbers
    GloVe text       N lines of a word and D numbers

    Returns the words and float32 (N + 1, D) with a row of zeros for padding in front. Raises InputError.
    """
    try:
        words, vectors = _read_npz(path) if path.suffix == ".npz" else _read_lines(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"no word vectors in {path}: word2vec's binary or text, GloVe's text, or an npz file with arrays words "
            f"and vecs is needed as model.text.vectors ({error})"
        ) from error
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise InputError(
            f"{path} has {len(words)} words but vectors of shape {vectors.shape}; one row a word is needed"
        )
    return words, torch.from_numpy(np.concatenate([np.zeros_like(vectors[:1]), vectors]))


def _read_npz(path: Path) -> _Vectors:
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array")
        words = np.atleast_1d(arrays["words"])
        if words.dtype.kind == "S":  # str() would make "b'cut'" of it, a word that nobody says
            words = np.char.decode(words, "utf-8")
        return [str(word) for word in words], np.atleast_1d(arrays["vecs"]).astype(np.float32)


def _read_lines(path: Path) -> _Vectors:
    with path.open("rb") as file:
        first = file.readline()
        head = first.split()
        if len(head) != 2:  # GloVe has no line of sizes
            return _read_text(itertools.chain([first], file), size=len(head) - 1)
        count, size = int(head[0]), int(head[1])
        place = file.tell()
        second = file.readline()
        file.seek(place)
        words, vectors = _read_text(file, size) if _is_text(second, size) else _read_binary(file, count, size)
    if len(words) != count:
        raise ValueError(f"{len(words)} words, its first line says {count}")
    return words, vectors


def _is_text(line: bytes, size: int) -> bool:
    """Whether a line is a word and so many numbers."""
    numbers = line.rstrip().split(b" ")[-size:]
    return len(numbers) == size and all(_NUMBER.fullmatch(number) for number in numbers)


def _read_text(lines: Iterable[bytes], size: int) -> _Vectors:
    """A word may hold spaces: in GloVe's largest set some do."""
    words: list[str] = []
    rows: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    for line in lines:
        if not line.strip():
            continue
        word, *numbers = line.rstrip(b"\r\n ").rsplit(b" ", size)
        if len(numbers) != size or size < 1:
            raise ValueError(f"line {len(words) + 1} does not hold a word and {size} numbers")
        words.append(word.decode("utf-8", "replace"))
        rows.append(np.array(numbers, dtype=np.float32))
    if not words:
        raise ValueError("the file is empty")
    return words, np.stack(rows)


def _read_binary(file: BinaryIO, count: int, size: int) -> _Vectors:
    data = memoryview(file.read())
    words: list[str] = []
    vectors = np.empty((count, size), dtype=np.float32)
    at = 0
    for row in range(count):
        # Some writers end a vector with a line break, some do not.
        end = _find_space(data, at)
        words.append(bytes(data[at:end]).lstrip(b"\n").decode("utf-8", "replace"))
        at = end + 1 + 4 * size
        if at > len(data):
            raise ValueError(f"cut off in the vector of word {row + 1}")
        vectors[row] = np.frombuffer(data[end + 1 : at], dtype="<f4")
    return words, vectors


def _find_space(data: memoryview, at: int) -> int:
    place = bytes(data[at : at + _LONGEST_WORD]).find(b" ")
    if place < 0:
        raise ValueError("not word2vec's layout")
    return at + place
