"""HMDB-51: how well a linear classifier tells actions apart by a frozen video tower.

Features are the 1024 numbers of mixed_5c, before the joint embedding. Each of a video's N windows is a training row of
a linear SVM (C = 100, one against the rest); a test video is what the sum of its windows' decision values is highest
for. Top-1 accuracy in %, a split, and the mean of the three.

Annotations are hmdb51.csv: video_id,label,split1,split2,split3; splits are 1 (train), 2 (test) or 0 (neither). Labels
end in _test there, which is no part of the action's name. 70 training and 30 test videos an action and split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from sayso.errors import InputError
from train.evaluate.annotations import read_csv
from train.evaluate.embed import Embedder
from train.evaluate.pairs import Pair
from train.evaluate.protocol import Measured, Protocol
from train.evaluate.sight import Progress, seen_in_root, sight_of
from train.evaluate.videos import Videos

SPLITS = ("split1", "split2", "split3")
TRAIN, TEST = "1", "2"
C = 100.0
_MOST_ITERATIONS = 10_000
Features = npt.NDArray[np.float32]
Actions = npt.NDArray[np.str_]
Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Labelled:
    """A video, its action, and its part in each of the three splits."""

    video_id: str
    action: str
    splits: tuple[str, ...]


@dataclass(frozen=True)
class SplitResult:
    """Accuracy of one split in %, and what it rests on."""

    accuracy: float
    train: int
    test: int
    converged: bool


class HMDB51(Protocol):
    """HMDB-51's three splits."""

    name: ClassVar[str] = "hmdb51"
    unit: ClassVar[str] = "videos"
    output: ClassVar[str] = "mixed_5c"

    def __init__(self, videos: Sequence[Labelled]) -> None:
        self.labelled = videos

    @classmethod
    def read(cls, annotations: Path) -> Self:
        """Read the videos; their files are named by video_id, which ends in .avi in the published file."""
        videos: dict[str, Labelled] = {}
        for where, row in read_csv(annotations, ("video_id", "label", *SPLITS)):
            splits = tuple(row[split] for split in SPLITS)
            if not set(splits) <= {"0", TRAIN, TEST}:
                raise InputError(f"{where}: splits {', '.join(splits)}; each must be 0, 1 (train) or 2 (test)")
            video_id = row["video_id"].removesuffix(".avi")
            if video_id in videos:
                raise InputError(f"{where}: {row['video_id']} again; each video has one row")
            videos[video_id] = Labelled(video_id, row["label"].removesuffix("_test"), splits)
        return cls(list(videos.values()))

    def video_ids(self) -> list[str]:
        """All videos."""
        return [video.video_id for video in self.labelled]

    def measure(self, videos: Videos, embedder: Embedder, windows: int, progress: Progress) -> Measured:
        """Accuracy of the three splits, trained and tested on the videos that are there."""
        there = [video for video in self.labelled if video.video_id in videos.there]
        for split in range(len(SPLITS)):  # before the videos are looked at, which may take hours
            parts_of(there, split)
        features = _features(there, videos, embedder, windows, progress)
        results = [classify(there, features, split) for split in range(len(SPLITS))]
        parts = {
            name: {"accuracy": result.accuracy, "train": result.train, "test": result.test}
            for name, result in zip(SPLITS, results, strict=True)
        }
        loose = [name for name, result in zip(SPLITS, results, strict=True) if not result.converged]
        return Measured(
            metrics={"accuracy": float(np.mean([result.accuracy for result in results]))},
            chance={"accuracy": 100 / len({video.action for video in self.labelled})},
            parts=parts,
            notes=[f"the SVM had not converged: {', '.join(loose)}"] if loose else [],
            used=len(there),
            of=len(self.labelled),
        )


def _features(
    there: Sequence[Labelled], videos: Videos, embedder: Embedder, windows: int, progress: Progress
) -> Features:
    """mixed_5c of each video's windows (videos, windows, D)."""
    whole = [Pair(video.video_id, 0.0, inf, video.action) for video in there]
    rows = []
    for _, seen in seen_in_root(whole, videos, sight_of(embedder, output=HMDB51.output), windows=windows):
        rows.append(seen)
        progress(len(rows), len(there))
    found: Features = torch.stack(rows).numpy()
    return found


def parts_of(videos: Sequence[Labelled], split: int) -> tuple[Actions, Chosen, Chosen]:
    """Each video's action, whether it is trained on in a split, and whether it is tested on.

    InputError where there is nothing to test, or fewer than two actions to tell apart.
    """
    actions = np.array([video.action for video in videos])
    part = np.array([video.splits[split] for video in videos])
    train, test = part == TRAIN, part == TEST
    if not test.any() or len(set(actions[train])) < 2:
        raise InputError(
            f"{SPLITS[split]}: {train.sum()} training videos of {len(set(actions[train]))} actions and {test.sum()} "
            "test videos are there; two actions and a test video are needed"
        )
    return actions, train, test


def classify(videos: Sequence[Labelled], features: Features, split: int) -> SplitResult:
    """Train on a split's training videos, test on its test videos; features (videos, windows, D) in their order.

    InputError where the split cannot be tested.
    """
    actions, train, test = parts_of(videos, split)
    windows = features.shape[1]
    svm, converged = _fit(features[train].reshape(-1, features.shape[2]), actions[train].repeat(windows))
    values = svm.decision_function(features[test].reshape(-1, features.shape[2]))
    if values.ndim == 1:  # of two actions scikit-learn gives the second one's value only
        values = np.stack([-values, values], axis=1)
    summed = values.reshape(test.sum(), windows, -1).sum(axis=1)
    right = svm.classes_[summed.argmax(axis=1)] == actions[test]
    return SplitResult(100 * float(right.mean()), int(train.sum()), int(test.sum()), converged)


def _fit(rows: Features, actions: Actions) -> tuple[Any, bool]:
    """The fitted SVM, and whether it had converged."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=C, random_state=0, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the report
        svm.fit(rows, actions)
    return svm, bool(np.max(svm.n_iter_) < _MOST_ITERATIONS)
