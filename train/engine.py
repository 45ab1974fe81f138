"""The training loop: one readable loop around deepspeed.initialize, the same for every task.

    batch -> task (towers, objective) -> loss -> gradients averaged over ranks -> step -> metrics, at times a checkpoint

Every rank runs `train` with the same recipe. Everything random follows from recipe.seed, and a checkpoint holds all
that the next step depends on, so that a run that was killed goes on with the losses it would have had.
"""

import contextlib
import functools
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

from sayso.errors import InputError, NotFinite, Preempted, StorageError
from train import checkpoint
from train.activations import checkpoint_activations
from train.augment import augment
from train.data import Batch, Batches, first_clips, open_reader, to_device
from train.distributed import barrier, keeps_folder, rank, world_size
from train.ema import Average
from train.guard import Guard, Taken
from train.heldout import HeldOut
from train.metrics import Bar, MetricsLog
from train.mirror import Mirror
from train.models.gated import GatedSettings
from train.node import say
from train.recipe import Recipe
from train.record import record_start
from train.run import CHECKPOINTS, METRICS, TENSORBOARD, Latest, latest
from train.schedule import rate_factor
from train.speed import Speed, peak, skeleton
from train.tasks import Model, Task, check_clips, make_model, make_objective
from train.vocabulary import Vocabulary, load_vectors
from train.weights import WORDS, ModelCard, Trained

RANKS_WAIT = timedelta(minutes=30)  # for the slowest rank, before the others give up


@dataclass(frozen=True)
class Run:
    """What the loop works on."""

    recipe: Recipe
    engine: deepspeed.DeepSpeedEngine
    batches: Batches
    task: Task
    device: torch.device
    total: int
    speed: Speed
    average: Average | None = None
    heldout: HeldOut | None = None
    mirror: Mirror | None = None
    origins: dict[str, str] = field(default_factory=dict)
    """What made the features that are trained on."""


def train(recipe: Recipe, stop: threading.Event) -> None:
    """Train what the recipe says, from its last checkpoint on. Called by every rank, after train.run.prepare.

    Raises Preempted, after a checkpoint, once `stop` is set on any rank; NotFinite where a step gives no number.
    """
    run = build(recipe, start_rank(recipe))
    folder = recipe.output.folder
    start = latest(folder / CHECKPOINTS).step
    if start:
        checkpoint.restore(run.engine, folder / CHECKPOINTS, start, run.average)
    with contextlib.ExitStack() as stack:
        log = bar = None
        if rank() == 0:
            if run.mirror:
                run.mirror.expect_nobody()
            record_start(
                folder, start=start, total=run.total, model=run.task.model, device=run.device, peak=run.speed.peak
            )
            events = folder / TENSORBOARD if recipe.output.tensorboard else None
            log = stack.enter_context(MetricsLog(folder / METRICS, start=start, tensorboard=events))
            bar = stack.enter_context(Bar(start=start, total=run.total))
        try:
            loop(run, start, log, bar, stop)
        except (Preempted, NotFinite) as error:  # on all ranks at the same step
            if isinstance(error, NotFinite) and rank() == 0:
                tell(error, run.mirror)
            leave()
            raise
    leave()


def tell(error: NotFinite, mirror: Mirror | None) -> None:
    """Say why the run ends, and leave what the guard kept of the batch in the second place."""
    say(f"rank 0: {error}")
    if mirror:
        with contextlib.suppress(StorageError):  # the loss is the news, and restarts would not help
            mirror.put_files()  # this machine may go with the job


def leave() -> None:
    """Leave the process group, all ranks together: once one is gone, its launcher ends the others, here or elsewhere.

    A process that ends while gloo's threads run may abort, and lose its exit code.
    """
    barrier()
    dist.destroy_process_group()


def loop(run: Run, start: int, log: MetricsLog | None, bar: Bar | None, stop: threading.Event) -> None:
    """The steps [start, total)."""
    recipe, output = run.recipe, run.recipe.output
    batches = run.batches.from_step(start, run.total)
    guard = Guard(output.folder, stop, run.device)
    run.engine.train()
    for step in range(start + 1, run.total + 1):
        began, rate = time.perf_counter(), run.engine.get_lr()[0]
        taken = take_step(run, batches, step)
        loss, stopping = guard.agree(step, taken)  # waits for the device
        taken.seconds = time.perf_counter() - began
        if run.average:
            run.average.update()
        last = step == run.total
        figures = {"step": step, "loss": loss, "lr": rate, "broken": run.batches.reader.broken}
        if run.heldout and (last or step % (recipe.evaluation.every or run.total) == 0):
            with averaged(run):
                figures["val_loss"] = run.heldout.loss(run.engine, run.task.fields, run.device)
        if last or stopping or step % output.log_every == 0 or "val_loss" in figures:
            report(figures, run, taken, log, bar)
        if last or stopping or step % output.checkpoint_every == 0:
            save(run, step)
        if stopping and not last:
            raise Preempted(f"stopped after step {step} of {run.total}, with a checkpoint")


def take_step(run: Run, batches: Iterator[Batch], step: int) -> Taken:
    """One step of the optimiser: its micro-batches forward and backward, then clipping and the step, once."""
    engine, settings = run.engine, run.recipe.data
    taken = Taken()
    for micro_batch in range(settings.accumulate):
        asked = time.perf_counter()
        batch = to_device(next(batches), run.device)
        if "frames" in batch:
            seed = augment_seed(run.recipe.seed, step, micro_batch)
            batch["frames"] = augment(batch["frames"], settings.augment, seed=seed)
        taken.waited += time.perf_counter() - asked
        inputs = [batch[field] for field in run.task.fields]
        loss = engine(*inputs)
        engine.backward(loss)  # divides by the number of micro-batches
        if micro_batch + 1 == settings.accumulate and not engine.zero_optimization():
            taken.norm = gradient_norm(engine)
        engine.step()  # steps, and moves the schedule on, after the last micro-batch only
        taken.keys.append(batch["keys"])
        taken.losses.append(loss.detach())
    if engine.zero_optimization():
        taken.norm = float(engine.get_global_grad_norm())
    if engine.torch_autocast_z0_gradscaler is not None:
        taken.scale = engine.torch_autocast_z0_gradscaler.get_scale()
    taken.inputs = [torch.empty_like(tensor, device="meta") for tensor in inputs]
    return taken


def gradient_norm(engine: deepspeed.DeepSpeedEngine) -> float | None:
    """The norm of the whole gradient, not clipped yet, where ZeRO does not compute it anyway; None with fp16."""
    if engine.torch_autocast_z0_gradscaler is not None:
        return None  # scaled, and at times infinite: such steps are left out and the scale is lowered
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item()


def augment_seed(seed: int, step: int, micro_batch: int) -> int:
    """A number for the augmentation of this rank's micro-batch of a step, found again without any state."""
    return ((seed * 1_000_003 + step) * 8_209 + micro_batch) * 65_537 + rank()


def report(figures: dict[str, float], run: Run, taken: Taken, log: MetricsLog | None, bar: Bar | None) -> None:
    """Write a step's figures down with its speed, where this rank does that."""
    if log and bar:
        norm = {} if taken.norm is None else {"gradient_norm": taken.norm}
        speed = run.speed.figures(taken)
        log.write(**figures, **norm, **speed)
        bar.show(int(figures["step"]), f"loss {figures['loss']:.3f}  {speed['samples_per_second']:.0f} clips/s")


def averaged(run: Run) -> contextlib.AbstractContextManager[None]:
    """Within it the model is what the run is for: the average of its weights, where there is one."""
    return run.average.in_place_of_weights() if run.average else contextlib.nullcontext()


def save(run: Run, step: int) -> None:
    """Write the checkpoint of a step."""
    recipe, embedding = run.recipe, run.task.model.text.word_embd
    card = ModelCard(
        model=recipe.model,
        clips=recipe.data.clips,
        words=embedding.num_embeddings,
        word_dim=embedding.embedding_dim,
        step=step,
        normalised=recipe.objective.normalised,
        origins=run.origins,
    )
    trained = Trained(run.task.model, run.batches.vocabulary, card)
    reached = Latest(step=step, reader=run.batches.state(step))
    folder = recipe.output.folder / CHECKPOINTS
    checkpoint.save(run.engine, folder, reached, trained, run.average, keep=recipe.output.keep)
    if run.mirror:
        if keeps_folder():
            run.mirror.put_checkpoint(step)
        barrier()
        if rank() == 0:
            run.mirror.put_pointer(reached, keep=recipe.output.keep)
        barrier()  # a rank that leaves makes the launcher end the others


def start_rank(recipe: Recipe) -> torch.device:
    """Join the process group; returns this rank's device."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed still calls collectives by names that torch is going to drop.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # DeepSpeed would compile kernels of its own at the start (minutes); nothing here is served by them.
    deepspeed.ops.__compatible_ops__ = {}
    cpu = recipe.engine.resolved_device == "cpu"
    deepspeed.init_distributed("gloo" if cpu else "nccl", verbose=False, timeout=RANKS_WAIT)
    if cpu:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def build(recipe: Recipe, device: torch.device) -> Run:
    """Model, data and engine of this rank, as they are before the first step."""
    vocabulary = Vocabulary.load(recipe.output.folder / WORDS)
    reader = open_reader(recipe.data, seed=recipe.seed, rank=rank(), world_size=world_size())
    batches = Batches(reader, vocabulary, recipe.data)
    total = recipe.schedule.total_steps(batches.per_epoch)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, vocabulary)
    task = Task(model, make_objective(recipe.objective))
    speed = Speed(recipe, skeleton(task), peak(recipe, device))
    if recipe.engine.checkpoint_activations:
        checkpoint_activations(task)
    if recipe.engine.compile:
        compile_towers(model)
    engine = initialize(recipe, place(task, device), total=total, per_epoch=batches.per_epoch)
    torch.manual_seed(recipe.seed + rank())
    average = Average(task, recipe.optimiser.ema) if recipe.optimiser.ema is not None else None
    heldout = HeldOut(recipe, vocabulary) if recipe.evaluation.every else None
    mirror = Mirror(recipe.output.mirror, recipe.output.folder) if recipe.output.mirror is not None else None
    features = isinstance(recipe.model, GatedSettings) and rank() == 0  # which writes them beside the model
    origins = check_clips(recipe.model, first_clips(recipe.data)) if features else {}
    return Run(recipe, engine, batches, task, device, total, speed, average, heldout, mirror, origins)


def compile_towers(model: nn.Module) -> None:
    """Have torch compile each tower at its first call; the objective, which speaks with other ranks, stays as it is."""
    for tower in model.children():
        tower.compile()


def build_model(recipe: Recipe, vocabulary: Vocabulary) -> Model:
    """The towers with fresh weights and, where given, word vectors. InputError where those are of other words."""
    text = recipe.model.text
    if text.vectors is None:
        return make_model(recipe.model, words=len(vocabulary), word_dim=text.word_dim)
    words, vectors = load_vectors(text.vectors, keep=frozenset(vocabulary.words) if text.said_only else None)
    if words != vocabulary.words:
        raise InputError(
            f"{text.vectors} has other words than {recipe.output.folder / WORDS}, which was made when the run began; "
            "give the file of then, or choose another output.folder"
        )
    model = make_model(recipe.model, words=len(vocabulary), word_dim=vectors.shape[1])
    model.text.set_vectors(vectors)
    return model


def place(task: Task, device: torch.device) -> nn.Module:
    """The task on its device; on CUDA in the order of axes that its convolutions are quickest with."""
    if device.type == "cpu":
        return task
    task.model.video.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a torch stub lacks 3d
    return task.to(device)


def initialize(recipe: Recipe, task: nn.Module, *, total: int, per_epoch: int) -> deepspeed.DeepSpeedEngine:
    """DeepSpeed around a task: gradients averaged over ranks, the optimiser, the schedule (steps), ZeRO."""
    settings = recipe.optimiser
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    # An optimiser object, not a name: for a name DeepSpeed compiles its own.
    optimiser = kind(parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    schedule = recipe.schedule
    factor = functools.partial(
        rate_factor,
        warmup=schedule.warmup_steps,
        total=total,
        name=schedule.name,
        decay=schedule.decay,
        per_epoch=per_epoch,
    )
    engine, *_ = deepspeed.initialize(
        model=task,
        optimizer=optimiser,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimiser, factor),
        config=deepspeed_config(recipe),
    )
    return engine


def deepspeed_config(recipe: Recipe) -> dict[str, Any]:
    """What DeepSpeed is told; everything else is our own loop's."""
    dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(recipe.engine.resolved_precision)
    return {
        "train_batch_size": recipe.data.batch,
        "gradient_accumulation_steps": recipe.data.accumulate,
        "gradient_clipping": recipe.optimiser.clip_gradient,
        "zero_optimization": {"stage": recipe.engine.zero_stage},
        "zero_allow_untested_optimizer": True,
        # Weights and the statistics of batch norm stay fp32; the towers compute in half precision.
        # Ranks send each other fp32 too: by itself ZeRO rounds the gradients of linear layers and convolutions.
        "torch_autocast": {
            "enabled": dtype is not None,
            "dtype": dtype or "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "steps_per_print": None,
    }
