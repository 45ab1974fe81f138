"""YouCook2 and MSR-VTT: find the clip of a sentence among all clips of the set, without training on it.

A clip is N windows with starts linspace(start, max(start, end - window)), each the middle square of the picture; its
embedding is the mean of the windows' raw embeddings, a score the dot product with the sentence's (Miech et al., CVPR
2020). One sentence a clip, one clip a sentence.

YouCook2   youcook2_val.csv: end,start,task,text,video_id; 3,350 clips of 436 videos
MSR-VTT    msrvtt_test_1kA.csv: key,vid_key,video_id,sentence; 1,000 whole videos ("1k-A")
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from sayso.errors import InputError
from train.evaluate.annotations import read_csv
from train.evaluate.clips import usable
from train.evaluate.embed import Embedder
from train.evaluate.metrics import chance, retrieval_metrics
from train.evaluate.pairs import Pair, read_pairs
from train.evaluate.protocol import Measured, Protocol
from train.evaluate.retrieval import embed_clips
from train.evaluate.sight import Progress, counted, seen_in_root, sight_of
from train.evaluate.videos import Videos


class TextToClip(Protocol):
    """Retrieval over pairs of a sentence and a clip."""

    unit: ClassVar[str] = "clips"

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def video_ids(self) -> list[str]:
        """The videos of the pairs."""
        return [pair.video_id for pair in self.pairs]

    def measure(self, videos: Videos, embedder: Embedder, windows: int, progress: Progress) -> Measured:
        """R@K and median rank among the clips that are there; ties count half, and as won in a part of its own."""
        kept = usable(self.pairs, videos)
        if not kept:
            raise InputError("every clip begins behind the end of its video; are these the right videos?")
        seen = seen_in_root(kept, videos, sight_of(embedder), windows=windows)
        found, clips = embed_clips(counted(seen, len(kept), progress))
        scores = embedder.texts([pair.text for pair in found]) @ clips.T
        return Measured(
            metrics=retrieval_metrics(scores).model_dump(),
            chance=chance(len(found)).model_dump(),
            parts={"ties counted as won": retrieval_metrics(scores, ties="won").model_dump()},
            used=len(found),
            of=len(self.pairs),
        )


class YouCook2(TextToClip):
    """YouCook2's validation clips."""

    name: ClassVar[str] = "youcook2"

    @classmethod
    def read(cls, annotations: Path) -> Self:
        """Read the clips with their times."""
        return cls(read_pairs(annotations))


class MSRVTT(TextToClip):
    """The 1,000 test videos of MSR-VTT that are known as 1k-A, each with one of its sentences."""

    name: ClassVar[str] = "msrvtt"

    @classmethod
    def read(cls, annotations: Path) -> Self:
        """Read one whole video a row; a video that comes twice would have two right answers."""
        pairs: dict[str, Pair] = {}
        for where, row in read_csv(annotations, ("video_id", "sentence")):
            if row["video_id"] in pairs:
                raise InputError(f"{where}: {row['video_id']} again; the 1k-A file has one sentence a video")
            pairs[row["video_id"]] = Pair(row["video_id"], 0.0, math.inf, row["sentence"])
        return cls(list(pairs.values()))
