"""Text-clip pairs to retrieve, from a CSV of the published kind.

Columns video_id, start, end (seconds) and text in any order; others (YouCook2's `task`) are passed over.
"""

from dataclasses import dataclass
from pathlib import Path

from sayso.errors import InputError
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
    """The pairs of a CSV file; InputError names what is wrong in which line.

    A pair that comes twice would tie with itself, so neither could be first.
    """
    pairs: dict[Pair, None] = {}
    for where, row in read_csv(path, COLUMNS):
        pair = Pair(row["video_id"], *seconds(row["start"], row["end"], where), row["text"])
        if pair in pairs:
            raise InputError(f"{where}: the same clip and text again; remove one of the two lines")
        pairs[pair] = None
    return list(pairs)
