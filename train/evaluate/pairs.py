"""Text-clip pairs to retrieve, from a CSV of the published kind.

Columns video_id, start, end (seconds) and text in any order; others (YouCook2's `task`) are passed over.
"""

from dataclasses import dataclass
from pathlib import Path

from train.evaluate.annotations import read_csv, seconds

COLUMNS = ("video_id", "start", "end", "text")


@dataclass(frozen=True)
class Pair:
    """A text and the stretch [start, end) of the video that it describes; an infinite end is that of the video."""

    video_id: str
    start: float
    end: float
    text: str


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a CSV file; InputError names what is wrong in which line."""
    return [
        Pair(row["video_id"], *seconds(row["start"], row["end"], where), row["text"])
        for where, row in read_csv(path, COLUMNS)
    ]
