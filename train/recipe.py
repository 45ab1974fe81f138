"""A recipe: everything that decides a training run, in one YAML file, checked before anything starts.

Recipes that come with sayso lie in train/recipes and are found by name; `a.b=value` overrides any key.
"""

from pathlib import Path
from typing import Any, Literal, Self

import torch
import yaml
from pydantic import Field, model_validator

from sayso.caches import copy_of, is_copy_of, is_url
from sayso.config import Settings, load
from sayso.errors import ConfigError
from shards.mix import Source
from shards.reader import ReaderSettings
from train.augment import AugmentSettings
from train.models.video_text import VideoTextSettings
from train.objectives.mil_nce import MILNCESettings
from train.schedule import ScheduleName
from train.tasks import ModelSettings, ObjectiveSettings

RECIPES = Path(__file__).parent / "recipes"


class MixedExport(Settings):
    """One of several exports that are trained on together."""

    root: str | None = Field(None, description="root of the dataset; data.root where not given")
    export: str = Field(description="name of the export under <root>/shards")
    split: str | None = Field(None, description="split of the export; data.split where not given")
    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="share of the clips, relative to the others'")


class DataSettings(Settings):
    """Which clips are trained on and how they are batched."""

    root: str | None = Field(None, description="root of the dataset: a folder or any fsspec URL")
    export: str | None = Field(None, description="name of the export under <root>/shards; give this or mix")
    split: str = Field("train", description="split of the export that is trained on")
    mix: list[MixedExport] = Field([], description="several exports to be mixed: {root, export, split, weight} of each")
    clips: ReaderSettings = Field(ReaderSettings(), description="what the reader makes of a sample")
    batch: int = Field(64, ge=2, description="samples of a step over all ranks: clips, or videos with features")
    accumulate: int = Field(
        1, ge=1, description="micro-batches that a rank's share of a step is computed in; negatives are of one of them"
    )
    augment: AugmentSettings = Field(AugmentSettings(), description="what is changed about the clips' colours")
    workers: int = Field(0, ge=0, description="processes a rank that decode clips; 0 decodes in the rank itself")

    @model_validator(mode="after")
    def _some_data(self) -> Self:
        if (self.export is None) == (not self.mix):
            raise ValueError("give either export or mix; where the recipe has one, set it to null")
        if self.root is None and (self.export or not all(mixed.root for mixed in self.mix)):
            raise ValueError("give root, the folder or URL of the dataset")
        return self

    @property
    def sources(self) -> list[Source]:
        """What is read, and in which proportion; one export is a mix of one."""
        mix = self.mix or [MixedExport(export=self.export or "")]
        return [
            Source(
                url=f"{(mixed.root or self.root or '').rstrip('/')}/shards/{mixed.export}",
                split=mixed.split or self.split,
                weight=mixed.weight,
            )
            for mixed in mix
        ]


class OptimiserSettings(Settings):
    """How gradients become steps."""

    name: Literal["adam", "adamw"] = Field("adam", description="the optimiser")
    lr: float = Field(1e-3, gt=0, description="learning rate after warm-up")
    weight_decay: float = Field(0.0, ge=0, description="weight decay (decoupled with adamw)")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay of the two moments")
    clip_gradient: float = Field(0.0, ge=0, description="largest norm of a step's whole gradient; 0 leaves it as it is")

    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of an average of the weights that is saved and evaluated in their place"
    )


class ScheduleSettings(Settings):
    """How long, and the learning rate's way (train/schedule.py)."""

    name: ScheduleName = Field(
        "cosine",
        description="after warm-up: cosine or linear to 0 at the last step, constant, or decay a time an epoch",
    )
    decay: float = Field(0.9, gt=0, le=1, description="what the rate is multiplied with after each epoch (decay)")
    epochs: int | None = Field(None, ge=1, description="passes over the data; give this or steps")
    steps: int | None = Field(None, ge=1, description="optimiser steps; give this or epochs")
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises from 0")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps (set the other to null)")
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps of the whole run."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


class EngineSettings(Settings):
    """Where it runs."""

    nodes: int | None = Field(
        None, ge=1, description="machines of a Ray cluster to run on together; without it, this one, and no Ray"
    )
    ranks: int = Field(1, ge=1, description="processes on each machine, one an accelerator")
    restarts: int = Field(
        3, ge=0, description="how often ranks that ended too soon are started again, from the last checkpoint"
    )
    address: str | None = Field(
        None,
        description="with nodes: address of the Ray cluster, host:port or auto; by default the environment's "
        "RAY_ADDRESS, which a submitted job has",
    )
    cpus: int | None = Field(None, ge=1, description="with nodes: CPUs asked for on each; by default one a rank")
    node_limit: float = Field(
        900.0, gt=0, description="with nodes: seconds to wait for machines, at the start and after one was lost"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA where it is there")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="what the towers compute in, weights stay fp32; auto is bf16 on CUDA, fp32 on a CPU"
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0,
        description="what DeepSpeed's ZeRO shares out over the ranks: 1 the optimiser's state, 2 gradients too, "
        "3 weights too",
    )
    checkpoint_activations: bool = Field(
        False, description="keep only the inputs of a model's blocks and compute the rest again in backward"
    )
    compile: bool = Field(False, description="compile the towers with torch.compile")
    peak_tflops: float | None = Field(
        None, gt=0, description="what one device can do, for MFU; measured with matrix products where not given"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of a rank; by default the cores shared out")

    @property
    def world_size(self) -> int:
        """Ranks on all machines together."""
        return (self.nodes or 1) * self.ranks

    @property
    def resolved_device(self) -> Literal["cpu", "cuda"]:
        """The device that `auto` stands for on this machine."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    @property
    def resolved_precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """The precision that `auto` stands for on this machine."""
        if self.precision == "auto":
            return "bf16" if self.resolved_device == "cuda" else "fp32"
        return self.precision

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.precision == "fp16" and self.zero_stage:
            # Each rank would look for overflows in its own part of the gradient alone, and ranks would part ways.
            raise ValueError("precision fp16 needs zero_stage 0; use bf16 with ZeRO")
        if self.compile and (self.checkpoint_activations or self.zero_stage == 3):
            raise ValueError("compile goes neither with checkpoint_activations nor with zero_stage 3")
        return self


class EvaluationSettings(Settings):
    """The loss on held-out clips while training goes on."""

    every: int | None = Field(None, ge=1, description="steps between evaluations; none without it")
    split: str = Field("val", description="split of the export that is evaluated on")
    batches: int = Field(4, ge=1, description="batches of data.batch clips that are evaluated on")


class OutputSettings(Settings):
    """What is written where."""

    folder: Path = Field(
        description="folder of this run, or any fsspec URL: checkpoints, metrics, the recipe as resolved; at a URL it "
        "is trained in a copy on this machine, and mirror is the URL"
    )
    mirror: str | None = Field(
        None,
        description="a second place for all of it, any fsspec URL: it is uploaded after each checkpoint, and brought "
        "back to a machine that has less of the run",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints; the last step has one too")
    keep: int = Field(2, ge=1, description="checkpoints that are kept, the newest ones")
    log_every: int = Field(1, ge=1, description="steps between lines of metrics.jsonl")
    tensorboard: bool = Field(True, description="write the same figures for TensorBoard, under folder/tensorboard")

    @model_validator(mode="before")
    @classmethod
    def _at_a_url(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not is_url(given.get("folder")):
            return given
        url = given["folder"].rstrip("/")
        if given.get("mirror") not in (None, url):
            raise ValueError(f"folder is a URL, {url}: it is the mirror too, leave mirror away")
        return {**given, "folder": copy_of(url, "runs"), "mirror": url}

    @property
    def place(self) -> str:
        """Where users find the run: the URL that they gave as its folder, else the folder."""
        url = self.mirror
        return url if url is not None and is_copy_of(url, "runs", self.folder) else str(self.folder)


class Recipe(Settings):
    """A whole training run."""

    seed: int = Field(0, ge=0, description="decides the weights at the start, the order and the augmentation")
    data: DataSettings
    model: ModelSettings = Field(VideoTextSettings(), description="the towers")
    objective: ObjectiveSettings = Field(MILNCESettings(), description="the loss")
    optimiser: OptimiserSettings = Field(OptimiserSettings(), description="the optimiser")
    schedule: ScheduleSettings
    engine: EngineSettings = Field(EngineSettings(), description="where it runs")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="the loss on held-out clips")
    output: OutputSettings

    @model_validator(mode="after")
    def _whole_shares(self) -> Self:
        micro_batches, nodes = self.data.accumulate, self.engine.nodes
        if self.data.batch % (self.engine.world_size * micro_batches):
            times = f" times engine.nodes {nodes}" if nodes else ""
            times += f" times data.accumulate {micro_batches}" if micro_batches > 1 else ""
            raise ValueError(
                f"data.batch {self.data.batch} cannot be shared out over engine.ranks {self.engine.ranks}{times}"
            )
        if nodes and not self.output.folder.is_absolute():
            raise ValueError(f"output.folder {self.output.folder}: with engine.nodes give an absolute path")
        if self.optimiser.ema is not None and self.engine.zero_stage == 3:
            raise ValueError("optimiser.ema needs engine.zero_stage 2 or less: with 3 no rank has all weights")
        if isinstance(self.model, VideoTextSettings) and self.model.video.stem == "space_to_depth":
            for name in ("frames", "size"):
                if (number := getattr(self.data.clips, name)) % 2:
                    raise ValueError(f"data.clips.{name} {number} must be even with model.video.stem=space_to_depth")
        return self

    def save(self, path: Path) -> None:
        """Write the recipe as resolved."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def load_recipe(path_or_name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe in a file, or of that name among train/recipes, with `a.b=value` overrides.

    Raises ConfigError that names each wrong key and what is allowed there.
    """
    return load(Recipe, _find(path_or_name), overrides or [])


def recipe_names() -> list[str]:
    """Names of the recipes that come with sayso."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():  # a run's folder may have its recipe's name
        return path
    named = RECIPES / f"{path_or_name}.yaml"
    if not named.exists():
        raise ConfigError(f"no recipe {path_or_name}: give a YAML file or one of {', '.join(recipe_names())}")
    return named
