"""Text-clip pairs to retrieve, from a CSV of the published kind.

Columns video_id, start, end (seconds) and text in any order; others (YouCook2's `task`) are passed over.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from sayso.errors import InputError

COLUMNS = ("video_id", "start", "end", "text")


@dataclass(frozen=True)
class Pair:
    """A text and the stretch [start, end) of the video that it describes."""

    video_id: str
    start: float
    end: float
    text: str


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a CSV file; InputError names what is wrong in which line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path}: no column {missing[0]}; the columns {', '.join(COLUMNS)} are needed")
            pairs = [_pair(row, f"{path}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    if not pairs:
        raise InputError(f"{path}: no pairs in it")
    return pairs


def _pair(row: dict[str, str], where: str) -> Pair:
    try:
        start, end = float(row["start"]), float(row["end"])
    except (TypeError, ValueError):
        raise InputError(f"{where}: start {row['start']!r} and end {row['end']!r} must be seconds") from None
    if not 0 <= start < end < float("inf"):
        raise InputError(f"{where}: start {start} and end {end} are not a stretch of time")
    if not row["text"]:
        raise InputError(f"{where}: no text")
    return Pair(row["video_id"], start, end, row["text"])
