"""A trained model as others take it: weights without pickle, its settings, its words, and how clips were made.

FOLDER/model.pt         state of the towers, read with weights_only=True
FOLDER/model.json       settings of the towers and of the clips
FOLDER/vocabulary.json  words in the order of their ids
"""

import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sayso.config import Settings, validate
from sayso.errors import ConfigError, InputError, ModelNotFound
from shards.reader import ReaderSettings
from train.tasks import Model, ModelSettings, make_model
from train.vocabulary import Vocabulary

FILES = WEIGHTS, CARD, WORDS = "model.pt", "model.json", "vocabulary.json"
_SAID = 200
"""Letters of what torch says about weights that do not fit: of large models it lists hundreds of names."""


class ModelCard(Settings):
    """What has to be known to build the model again and to feed it."""

    model: ModelSettings
    clips: ReaderSettings
    words: int
    word_dim: int
    step: int
    normalised: bool = False
    """Whether embeddings are to be compared by the cosine."""
    origins: dict[str, str] = Field(default_factory=dict)
    """What made the features that it was trained on, by stream, as far as that is known."""


@dataclass(frozen=True)
class Trained:
    """A model with its words and the clips it was trained on."""

    model: Model
    vocabulary: Vocabulary
    card: ModelCard


def save_model(folder: Path, trained: Trained, weights: dict[str, Tensor] | None = None) -> None:
    """Write weights (the model's own where none are given), settings and vocabulary into a folder."""
    save_tensors(trained.model.state_dict() if weights is None else weights, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(trained.card.model_dump(mode="json"), indent=2))
    trained.vocabulary.save(folder / WORDS)


def save_tensors(content: Any, path: Path) -> None:
    """torch.save, where a full disk is an OSError: of a path torch makes it a RuntimeError that does not say so."""
    with path.open("wb") as file:
        torch.save(content, file)


def load_model(folder: Path) -> Trained:
    """The model in a folder, on the CPU and in evaluation mode.

    Raises ModelNotFound where there is none, InputError where the files do not fit together.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise ModelNotFound(f"no model in {folder}: {name} is missing; `sayso train` writes it into a run's folder")
    card, vocabulary = _read_card(folder / CARD), Vocabulary.load(folder / WORDS)
    if len(vocabulary) != card.words:
        raise InputError(
            f"{folder / WORDS} is of another model: {card.words - 1} words belong to the weights, and it has "
            f"{len(vocabulary) - 1}; copy model.pt, model.json and vocabulary.json of one checkpoint together"
        )
    model = make_model(card.model, words=card.words, word_dim=card.word_dim)
    try:
        if not zipfile.is_zipfile(folder / WEIGHTS):  # as torch writes them; its reader of older files trips over junk
            raise ValueError("it is cut off, or was not written by torch.save")
        model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:  # torch then says how to run what the file holds
        raise InputError(f"{folder / WEIGHTS} is not a model that sayso wrote: it holds more than tensors") from error
    except (ValueError, TypeError, RuntimeError, EOFError) as error:
        said = " ".join(str(error).split())[:_SAID]
        raise InputError(f"{folder / WEIGHTS} is not a model that sayso wrote with this {CARD} ({said})") from error
    return Trained(model.eval(), vocabulary, card)


def _read_card(path: Path) -> ModelCard:
    try:
        return validate(ModelCard, json.loads(path.read_text()), source=str(path))
    except ValueError as error:
        raise InputError(f"{path} is not a model's card ({error}); `sayso train` writes it beside {WEIGHTS}") from error
    except ConfigError as error:
        raise InputError(str(error)) from error
