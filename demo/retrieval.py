"""The retrieval protocol of a demo world: which clip is the right answer to which text, known from the truth."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from demo.truth import Seen, VideoTruth


class RetrievalPair(BaseModel):
    """A text and the clip [start, end) seconds of the video that shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video_id: str
    start: float
    end: float
    text: str


def retrieval_pairs(
    truths: Iterable[VideoTruth], video_id: Callable[[VideoTruth], str] = lambda truth: truth.id
) -> list[RetrievalPair]:
    """One clip a distinct description, so every text has one right answer: the longest span that shows it.

    `video_id` names a video as the reader of the protocol knows it. Ordered by text.
    """
    longest: dict[str, tuple[VideoTruth, Seen]] = {}
    for truth in truths:
        for seen in truth.seen:
            best = longest.get(seen.description)
            if best is None or seen.end - seen.start > best[1].end - best[1].start:
                longest[seen.description] = truth, seen
    return [
        RetrievalPair(video_id=video_id(truth), start=seen.start, end=seen.end, text=text)
        for text, (truth, seen) in sorted(longest.items())
    ]


def write_protocol(pairs: Iterable[RetrievalPair], path: Path) -> None:
    """Write pairs as CSV with the columns video_id, start, end, text."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(RetrievalPair.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(pair.model_dump() for pair in pairs)
