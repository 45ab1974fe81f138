"""CrossTask: find when each step of a task is done, its steps and their order being known.

A video is cut into bins of one second; a bin's embedding is that of the model's window around its middle. With scores
s[t, k] = bin t . step k, steps are put onto bins in their order at the least sum of -log softmax over k of s
(train/evaluate/ordered.py). A step is hit where its bin lies in one of its annotated stretches, each widened to whole
seconds. Recall of a task = hits / steps present, over all its videos; the figure is the mean over the 18 primary tasks.

Annotations are the folder crosstask_release:

    tasks_primary.txt             a block a task: id, title, URL, number of steps, steps with commas; an empty line
    videos_val.csv                task,video,URL
    annotations/TASK_VIDEO.csv    step from 1,start,end
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from sayso.errors import ConfigError, InputError
from train.evaluate.annotations import read_lines
from train.evaluate.embed import Embedder
from train.evaluate.ordered import ordered_assignment, spread
from train.evaluate.protocol import Figures, Measured, Protocol
from train.evaluate.sight import Progress, Sight, sight_of
from train.evaluate.videos import Videos

TASKS, VIDEOS, ANNOTATIONS = "tasks_primary.txt", "videos_val.csv", "annotations"
Present = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """Something people do, in steps."""

    task_id: str
    title: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Annotated:
    """A video of a task with the stretches (step from 0, start, end) that people marked in it."""

    video_id: str
    task_id: str
    stretches: tuple[tuple[int, float, float], ...]

    def present(self, bins: int, steps: int) -> Present:
        """Which step is done in which second (bins, steps); what lies behind the end of the video is left out."""
        marks = np.zeros((bins, steps), dtype=np.bool_)
        for step, start, end in self.stretches:
            marks[math.floor(start) : math.ceil(end), step] = True
        return marks


@dataclass
class Tally:
    """Hits and steps present of a task."""

    hits: int = 0
    by_chance: int = 0
    steps: int = 0
    videos: int = 0

    def add(self, present: Present, places: Sequence[int] | None) -> None:
        """Count a video; where no assignment exists all its steps are missed."""
        self.videos += 1
        self.steps += int(present.any(axis=0).sum())
        self.hits += hits(present, places)
        self.by_chance += hits(present, spread(*present.shape))


class CrossTask(Protocol):
    """CrossTask's primary tasks."""

    name: ClassVar[str] = "crosstask"
    unit: ClassVar[str] = "videos"
    windows: ClassVar[int] = 1

    def __init__(self, tasks: Mapping[str, Task], videos: Sequence[Annotated]) -> None:
        self.tasks, self.annotated = tasks, videos

    @classmethod
    def read(cls, annotations: Path) -> Self:
        """Read the folder, or a list of videos (as videos.csv) in it."""
        if not annotations.exists():
            raise InputError(f"{annotations}: not there; give the folder crosstask_release, or a list of videos in it")
        folder, listed = (
            (annotations, annotations / VIDEOS) if annotations.is_dir() else (annotations.parent, annotations)
        )
        tasks = read_tasks(folder / TASKS)
        videos = [
            _read_video(folder, tasks[task_id], video_id)
            for task_id, video_id in _read_list(listed)
            if task_id in tasks and _file(folder, task_id, video_id).exists()
        ]
        if not videos:
            raise InputError(f"{listed}: no video of a task of {TASKS} that has a file in {folder / ANNOTATIONS}")
        return cls(tasks, videos)

    def video_ids(self) -> list[str]:
        """The annotated videos of the primary tasks."""
        return [video.video_id for video in self.annotated]

    def looks(self, windows: int | None) -> int:
        """One a second. ConfigError for more."""
        if windows not in (None, self.windows):
            raise ConfigError("crosstask looks at one window a second; leave --windows out")
        return self.windows

    def measure(self, videos: Videos, embedder: Embedder, windows: int, progress: Progress) -> Measured:
        """Recall a task and its mean."""
        there = [video for video in self.annotated if video.video_id in videos.there]
        sight = sight_of(embedder)
        texts = {task.task_id: embedder.texts(task.steps) for task in self.tasks.values()}
        tallies: dict[str, Tally] = defaultdict(Tally)
        short = []
        for done, video in enumerate(there, start=1):
            scores = _bins(video.video_id, videos, sight) @ texts[video.task_id].T
            places = ordered_assignment(-torch.log_softmax(scores.double(), dim=1).numpy())
            if places is None:
                short.append(video.video_id)
            tallies[video.task_id].add(video.present(*scores.shape), places)
            progress(done, len(there))
        return self._measured(tallies, short)

    def _measured(self, tallies: Mapping[str, Tally], short: Sequence[str]) -> Measured:
        counted = {task_id: tally for task_id, tally in tallies.items() if tally.steps}
        if not counted:
            raise InputError("no step lies inside the videos that are there; are these the right videos?")
        notes = [f"{', '.join(short)}: fewer seconds than steps, all counted as missed"] if short else []
        if absent := [task.title for task_id, task in self.tasks.items() if task_id not in counted]:
            notes.append(f"tasks without a video that is there, not in the mean: {', '.join(absent)}")
        return Measured(
            metrics={"recall": _mean_recall([tally.hits for tally in counted.values()], counted)},
            chance={"recall": _mean_recall([tally.by_chance for tally in counted.values()], counted)},
            parts={self.tasks[task_id].title: _figures(tally) for task_id, tally in counted.items()},
            notes=notes,
            used=sum(tally.videos for tally in tallies.values()),
            of=len(self.annotated),
        )


def hits(present: Present, places: Sequence[int] | None) -> int:
    """How many steps were put into a second in which they are done."""
    return sum(bool(present[place, step]) for step, place in enumerate(places or []))


def bin_starts(duration: float, seconds: float) -> list[float]:
    """Where the window around the middle of each whole second begins; inside the video, as far as that is possible."""
    last = max(0.0, duration - seconds)
    return [min(max(0.0, t + 0.5 - seconds / 2), last) for t in range(max(1, math.floor(duration)))]


def _bins(video_id: str, videos: Videos, sight: Sight) -> torch.Tensor:
    """The embeddings of a video's bins (T, D)."""
    starts = bin_starts(videos.there[video_id].duration, sight.seconds)
    return sight.open(videos, video_id)([(start, start + sight.seconds) for start in starts])


def _mean_recall(found: Sequence[int], counted: Mapping[str, Tally]) -> float:
    recalls = [100 * number / tally.steps for number, tally in zip(found, counted.values(), strict=True)]
    return sum(recalls) / len(recalls)


def _figures(tally: Tally) -> Figures:
    recall = 100 * tally.hits / tally.steps
    return {"recall": recall, "hits": tally.hits, "steps": tally.steps, "videos": tally.videos}


def read_tasks(path: Path) -> dict[str, Task]:
    """The tasks of tasks_primary.txt by id."""
    lines = [line.strip() for line in read_lines(path)]
    tasks: dict[str, Task] = {}
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        block = lines[at : at + 5]
        where = f"{path}, line {at + 1}"
        if len(block) < 5 or "" in block:
            raise InputError(f"{where}: a task has five lines: id, title, URL, number of steps, steps")
        task_id, title, _, number, steps = block
        named = tuple(steps.split(","))
        if not number.isdecimal() or int(number) != len(named) or "" in named:
            raise InputError(f"{where}: task {task_id} says {number} steps and names {len(named)}")
        tasks[task_id] = Task(task_id, title, named)
        at += 5
    if not tasks:
        raise InputError(f"{path}: no tasks in it")
    return tasks


def _read_list(path: Path) -> list[tuple[str, str]]:
    """(task, video) of each line, once each."""
    found: dict[tuple[str, str], None] = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.strip().split(",", 2)
        if len(fields) < 2 or not all(fields[:2]):
            raise InputError(f"{path}, line {number}: task,video,URL is needed, not {line!r}")
        found[fields[0], fields[1]] = None
    return list(found)


def _file(folder: Path, task_id: str, video_id: str) -> Path:
    return folder / ANNOTATIONS / f"{task_id}_{video_id}.csv"


def _read_video(folder: Path, task: Task, video_id: str) -> Annotated:
    path = _file(folder, task.task_id, video_id)
    stretches = []
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        try:
            step, start, end = line.split(",")
            stretch = (int(step) - 1, float(start), float(end))
        except ValueError:
            raise InputError(f"{where}: step,start,end is needed, not {line!r}") from None
        if not 0 <= stretch[0] < len(task.steps):
            raise InputError(f"{where}: step {step}, but {task.title} has {len(task.steps)}")
        if not 0 <= stretch[1] <= stretch[2] < math.inf:
            raise InputError(f"{where}: start {start} and end {end} are not a stretch of time")
        stretches.append(stretch)
    return Annotated(video_id, task.task_id, tuple(stretches))
