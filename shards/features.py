"""Features of videos: from rows along the time of a video to rows a narration, and from those to pairs for training.

    (T, D) along the video -> maximum over each narration's window -> (N, D), what lies in a tar
    (N, D) of each stream  -> n rows drawn, each of length 1, streams side by side -> (n, D of all streams)

As the release of HowTo100M does it (Miech et al., ICCV 2019, arXiv:1906.03327). Arrays are .npy files of float16.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sayso.errors import CorruptObject
from shards.order import Ints, permutation, uniforms

Rows = npt.NDArray[np.float16]
ENDING = "npy"
_SLACK = 1e-6
"""Of a row: times come out of float arithmetic, and a window that ends where a row begins does not reach into it."""


def origin(model: str, fps: float) -> str:
    """What streams that are used together must have in common: equally large ones of another model are of no use."""
    return f"{model} at {fps:g} rows a second"


def read_rows(data: bytes, what: str) -> Rows:
    """The rows in a .npy file. CorruptObject where it is not a matrix of finite float16; nothing is unpickled."""
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CorruptObject(f"{what}: not an array ({error})") from None
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float16 or rows.ndim != 2:
        raise CorruptObject(f"{what}: not a matrix of float16")
    if not np.isfinite(rows).all():
        raise CorruptObject(f"{what}: holds values that are not numbers")
    return rows


def npy(rows: Rows) -> bytes:
    """A matrix as a .npy file; the same matrix gives the same bytes."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(rows), allow_pickle=False)
    return file.getvalue()


def max_pooled(rows: Rows, fps: float, windows: Sequence[tuple[float, float]]) -> Rows:
    """Rows (T, D) along a video, row i standing for [i / fps, (i + 1) / fps) -> (len(windows), D).

    Of each window [start, end), in seconds, the maximum over all rows that stand for a part of it; a window behind the
    last row has the last.
    """
    out = np.empty((len(windows), rows.shape[1]), np.float16)
    for place, (start, end) in enumerate(windows):
        first = min(math.floor(start * fps + _SLACK), len(rows) - 1)
        last = max(math.ceil(end * fps - _SLACK), first + 1)
        out[place] = rows[first:last].max(axis=0)
    return out


def drawn_pairs(seed: str, there: int, wanted: int) -> Ints:
    """Which `wanted` of a video's narrations are taken, a function of the seed: each once at most.

    Where there are fewer, they are drawn with replacement.
    """
    if there >= wanted:
        return permutation(seed, there)[:wanted]
    return np.array([int(uniforms(f"{seed}:{draw}", 1)[0] * there) for draw in range(wanted)], dtype=np.int64)


def unit_rows(streams: Mapping[str, Rows], chosen: Ints) -> npt.NDArray[np.float32]:
    """The chosen rows of each stream, each of length 1 (zeros stay zeros), side by side in the order of the names."""
    parts = []
    for name in sorted(streams):
        rows = streams[name][chosen].astype(np.float32)
        parts.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
    return np.concatenate(parts, axis=1)
