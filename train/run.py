"""The folder of a run, and what is settled in it before the ranks start.

FOLDER/recipe.yaml      the recipe as resolved
FOLDER/vocabulary.json  the words, fixed when the run begins
FOLDER/metrics.jsonl    a line a step
FOLDER/starts.jsonl     a line a start: code, environment (train/record.py)
FOLDER/.lock            held while a run is at work (train/hold.py)
FOLDER/tensorboard/     the figures of metrics.jsonl for TensorBoard
FOLDER/checkpoints/     train/checkpoint.py
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from sayso.config import Settings, load, validate
from sayso.errors import ConfigError, InputError, ModelNotFound
from sayso.storage import no_space_named
from train.data import first_clips, narrations, open_reader, steps_per_epoch
from train.heldout import heldout_data
from train.recipe import Recipe
from train.tasks import check_clips
from train.vocabulary import Vocabulary, load_vectors
from train.weights import WORDS

RECIPE, METRICS, CHECKPOINTS, POINTER = "recipe.yaml", "metrics.jsonl", "checkpoints", "latest.json"
TENSORBOARD = "tensorboard"
HEARD = 100  # narrations in which some word must have a vector
# What a run may change between two starts; anything else would make it another run.
MAY_CHANGE = re.compile(
    r"data\.(mix\.\d+\.)?root$|data\.workers$|data\.clips\.(prefetch|cache_)|(schedule|engine|evaluation|output)\."
)


@dataclass(frozen=True)
class Plan:
    """What a start of a run is going to do."""

    start: int
    total: int
    clips: int

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.start >= self.total


def prepare(recipe: Recipe) -> Plan:
    """Check a recipe against its data and its folder, and fix the run's vocabulary.

    Raises ConfigError or InputError for what would end the run later.
    """
    folder = recipe.output.folder
    reader = open_reader(recipe.data, seed=recipe.seed, world_size=recipe.engine.world_size)
    total = recipe.schedule.total_steps(steps_per_epoch(recipe.data, reader))
    if recipe.evaluation.every:
        heldout = heldout_data(recipe)
        steps_per_epoch(heldout, open_reader(heldout, seed=recipe.seed, world_size=recipe.engine.world_size))
    _refuse_another_run(recipe)
    check_clips(recipe.model, first_clips(recipe.data))
    refuse_missing_accelerators(recipe)
    start = latest(folder / CHECKPOINTS)
    if start.step:
        reader.load_state_dict(start.reader)  # refuses a run that was begun on other data
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = None if (folder / WORDS).exists() else _vocabulary(recipe)
    in_one_move(folder / RECIPE, recipe.save)
    if vocabulary:  # after the recipe, so that no other recipe goes on with it
        in_one_move(folder / WORDS, vocabulary.save)
    return Plan(start=min(start.step, total), total=total, clips=reader.samples)


def _vocabulary(recipe: Recipe) -> Vocabulary:
    text = recipe.model.text
    if text.vectors is not None:
        words = _words_of_vectors(recipe, text.vectors)
        vocabulary = Vocabulary(words, text.max_words)
        if not words or not vocabulary.encode(list(islice(narrations(recipe.data), HEARD))).any():
            raise ConfigError(
                f"none of the first {HEARD} narrations has a word of {text.vectors}: its words must be lower-case, and "
                "of the narrations' language; give other vectors"
            )
        return vocabulary
    vocabulary = Vocabulary.from_texts(narrations(recipe.data), max_words=text.max_words, min_count=text.min_count)
    if not vocabulary.words:
        raise ConfigError(
            f"no word occurs {text.min_count} times (model.text.min_count) in the narrations of the data; lower it, "
            "or give model.text.vectors"
        )
    return vocabulary


def _words_of_vectors(recipe: Recipe, path: Path) -> list[str]:
    text = recipe.model.text
    if not text.said_only:
        return load_vectors(path)[0]
    load_vectors(path, keep=frozenset())  # seconds; the narrations may take minutes, for a file that is broken
    said = Vocabulary.from_texts(narrations(recipe.data), max_words=text.max_words, min_count=text.min_count)
    return load_vectors(path, keep=frozenset(said.words))[0]


def _refuse_another_run(recipe: Recipe) -> None:
    path = recipe.output.folder / RECIPE
    if not path.exists():
        return
    before, now = flat(load(Recipe, path).model_dump()), flat(recipe.model_dump())
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    changed = [key for key in differing if not MAY_CHANGE.match(key)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{recipe.output.folder} holds a run of another recipe ({key} is {before.get(key)} there and "
            f"{now.get(key)} here); choose another output.folder"
        )


def refuse_missing_accelerators(recipe: Recipe) -> None:
    """ConfigError where this machine has fewer devices than a recipe has ranks for it."""
    if recipe.engine.resolved_device == "cpu":
        return
    there = torch.cuda.device_count()
    if there < recipe.engine.ranks:
        mend = "set engine.ranks to that, or" if there else "see that its driver answers (nvidia-smi), or set"
        raise ConfigError(
            f"engine.ranks {recipe.engine.ranks}: this machine has {there} CUDA devices; {mend} engine.device to cpu"
        )


def flat(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as its leaves by their full keys; items of lists by their numbers."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        leaves |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": value}
    return leaves


class Latest(Settings):
    """Where a run stands: its newest whole checkpoint, and the reader's state there."""

    step: int = 0
    reader: dict[str, int] = Field(default_factory=dict)


def latest(folder: Path) -> Latest:
    """The newest whole checkpoint among those in a folder; step 0 where there is none."""
    path = folder / POINTER
    if not path.exists():
        return Latest()
    try:
        return validate(Latest, json.loads(path.read_text()), source=str(path))
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}); remove it to start from step 0") from error


def point_to(folder: Path, reached: Latest) -> None:
    """Make a checkpoint the newest one of a folder, in one move."""
    in_one_move(folder / POINTER, lambda partial: partial.write_text(reached.model_dump_json()))


def in_one_move(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place and moved there: it is there whole or as it was, whatever happens.

    Raises NoSpace.
    """
    partial = path.with_name(f"{path.name}.partial")
    with no_space_named(str(path.parent)):
        write(partial)
        sync(partial)
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def latest_model(folder: Path) -> Path:
    """The folder of the model to evaluate: itself, or a run's newest checkpoint. ModelNotFound where there is none."""
    for run in (folder / CHECKPOINTS, folder):
        step = latest(run).step
        if step:
            return step_folder(run, step)
    if not folder.is_dir():
        raise ModelNotFound(f"no model in {folder}: there is no such folder")
    return folder
