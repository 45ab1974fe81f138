"""Weights that were released with MIL-NCE, as a model's folder that every command takes.

s3d_howto100m.pth, or a checkpoint of the training release  +  its words (.npy)  ->  FOLDER (train/weights.py)
"""

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sayso.errors import InputError
from shards.reader import ReaderSettings
from train.models.s3dg import TEXT, S3DGSettings, Stem, load_howto100m
from train.models.text import TextSettings
from train.models.video_text import VideoText, VideoTextSettings
from train.vocabulary import Vocabulary
from train.weights import ModelCard, Trained, save_model

SIZE = 224
WINDOWS: dict[Stem, tuple[int, float]] = {"space_to_depth": (32, 10.0), "plain": (16, 5.0)}
"""Frames of a window and frames a second that weights of either stem were trained on."""


def read_howto100m(path: Path) -> tuple[dict[str, Any], Stem]:
    """A released state under its released names, and its stem, which is told by its first convolution.

    Raises InputError where it is none, or could run code.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not weights that can be read without running code ({said})") from None
    inner = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    named = {name.removeprefix("module."): weight for name, weight in inner.items()}
    first = named.get("conv1.conv1.weight")
    if not isinstance(first, Tensor) or first.ndim != 5:
        raise InputError(f"{path}: not weights of S3D-G, conv1.conv1.weight is not there")
    return named, "space_to_depth" if first.shape[1] == 24 else "plain"


def import_howto100m(weights: Path, words: Path, folder: Path, *, max_words: int = 30) -> ModelCard:
    """Write the folder of a model with released weights and the words that belong to them.

    Padding takes part in the maximum over words, as in the release, so embeddings of sentences depend on `max_words`:
    the released evaluation reads 30. Raises InputError where a file is not what it should be, or the folder is in use.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty; give another folder")
    state, stem = read_howto100m(weights)
    vocabulary = Vocabulary(_read_words(words), max_words)
    vectors = state.get(f"{TEXT}word_embd.weight")
    if not isinstance(vectors, Tensor) or vectors.ndim != 2:
        raise InputError(f"{weights}: {TEXT}word_embd.weight is not there, so it has no text tower")
    if len(vectors) != len(vocabulary):
        raise InputError(
            f"{words} has {len(vocabulary) - 1} words and {weights} vectors of {len(vectors) - 1}; give the file of "
            "words that was released with these weights, s3d_dict.npy with s3d_howto100m.pth"
        )
    frames, fps = WINDOWS[stem]
    settings = VideoTextSettings(
        video=S3DGSettings(stem=stem), text=TextSettings(max_words=max_words, padding_in_max=True)
    )
    card = ModelCard(
        model=settings,
        clips=ReaderSettings(frames=frames, fps=fps, size=SIZE),
        words=len(vocabulary),
        word_dim=vectors.shape[1],
        step=0,
    )
    model = VideoText(settings, words=card.words, word_dim=card.word_dim)
    try:
        load_howto100m(model, state)
    except InputError as error:
        raise InputError(f"{weights}: {error}") from None
    partial = folder.with_name(f"{folder.name}.partial")  # a folder is there whole or not at all
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_model(partial, Trained(model, vocabulary, card))
    partial.replace(folder)
    return card


def _read_words(path: Path) -> list[str]:
    try:
        words = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a file of words, an .npy array as released ({error})") from None
    if not isinstance(words, np.ndarray) or words.ndim != 1 or words.dtype.kind not in "US":
        raise InputError(f"{path}: not a file of words, an .npy array of one word after the other")
    return [str(word) for word in (np.char.decode(words, "utf-8") if words.dtype.kind == "S" else words)]
