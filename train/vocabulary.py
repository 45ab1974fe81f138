"""Words to numbers: a narration becomes at most `max_words` word ids, padded with 0.

The vocabulary is fixed with the model and lies beside its weights as JSON. It comes from a file of word vectors, or,
where none is given, from the narrations that are trained on. Words it does not know are left out, as in the release.
"""

import itertools
import json
import mmap
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
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
_Rows: TypeAlias = Iterator[tuple[str, "Sequence[bytes] | np.ndarray[Any, np.dtype[np.float32]]"]]


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


def load_vectors(path: Path, keep: Set[str] | None = None) -> tuple[list[str], Tensor]:
    """Word vectors of any size, in one of four published layouts, told apart by the file's name and first bytes.

    .npz             arrays `words` (N,) and `vecs` (N, D)
    word2vec binary  a line "N D", then N times a word, a space and D little-endian float32
    word2vec text    a line "N D", then N lines of a word and D numbers
    GloVe text       N lines of a word and D numbers

    Returns the words and float32 (N + 1, D) with a row of zeros for padding in front: of all words, or of those to
    keep, in the order of the file. Raises InputError.
    """
    try:
        words, vectors = _read_npz(path, keep) if path.suffix == ".npz" else _read_lines(path, keep)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"no word vectors in {path}: word2vec's binary or text, GloVe's text, or an npz file with arrays words "
            f"and vecs is needed as model.text.vectors ({error})"
        ) from error
    return words, torch.from_numpy(np.concatenate([np.zeros((1, vectors.shape[1]), dtype=np.float32), vectors]))


def _read_npz(path: Path, keep: Set[str] | None) -> _Vectors:
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array")
        words = np.atleast_1d(arrays["words"])
        if words.dtype.kind == "S":  # str() would make "b'cut'" of it, a word that nobody says
            words = np.char.decode(words, "utf-8")
        vectors = np.atleast_1d(arrays["vecs"])
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise ValueError(f"{len(words)} words but vectors of shape {vectors.shape}, one row a word is needed")
    kept = [row for row, word in enumerate(words) if keep is None or str(word) in keep]
    return [str(words[row]) for row in kept], vectors[kept].astype(np.float32)


def _read_lines(path: Path, keep: Set[str] | None) -> _Vectors:
    with path.open("rb") as file:
        first = file.readline()
        head = first.split()
        if len(head) != 2:  # GloVe has no line of sizes
            size = len(head) - 1
            rows = _text_rows(itertools.chain([first], file), size)
            return _kept(rows, size, keep)
        count, size = int(head[0]), int(head[1])
        place = file.tell()
        second = file.readline()
        file.seek(place)
        rows = _text_rows(file, size) if _is_text(second, size) else _binary_rows(file, count, size)
        return _kept(rows, size, keep, count)


def _kept(rows: _Rows, size: int, keep: Set[str] | None, count: int | None = None) -> _Vectors:
    """The words and vectors to keep of a file's, which are so many where its first line says so."""
    words: list[str] = []
    vectors: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    read = 0
    for word, row in rows:
        read += 1
        if keep is None or word in keep:
            words.append(word)
            vectors.append(np.array(row, dtype=np.float32))
    if count is not None and read != count:
        raise ValueError(f"{read} words, its first line says {count}")
    if not read:
        raise ValueError("the file is empty")
    return words, np.stack(vectors) if vectors else np.empty((0, size), dtype=np.float32)


def _is_text(line: bytes, size: int) -> bool:
    """Whether a line is a word and so many numbers."""
    numbers = line.rstrip().split(b" ")[-size:]
    return len(numbers) == size and all(_NUMBER.fullmatch(number) for number in numbers)


def _text_rows(lines: Iterable[bytes], size: int) -> _Rows:
    """A word may hold spaces: in GloVe's largest set some do."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, *numbers = line.rstrip(b"\r\n ").rsplit(b" ", size)
        if len(numbers) != size or size < 1:
            raise ValueError(f"line {number} does not hold a word and {size} numbers")
        yield word.decode("utf-8", "replace"), numbers


def _binary_rows(file: BinaryIO, count: int, size: int) -> _Rows:
    at = file.tell()
    # Mapped, not read: the ranks of a machine share its pages, of which few are kept.
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for row in range(count):
        # Some writers end a vector with a line break, some do not.
        end = data.find(b" ", at, at + _LONGEST_WORD)
        if end < 0:
            raise ValueError("not word2vec's layout")
        word = data[at:end].lstrip(b"\n").decode("utf-8", "replace")
        at = end + 1 + 4 * size
        if at > len(data):
            raise ValueError(f"cut off in the vector of word {row + 1}")
        yield word, np.frombuffer(data, dtype="<f4", count=size, offset=end + 1)
