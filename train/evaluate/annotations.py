"""Annotation files as they are published, read strictly: what is wrong is named with its file and line."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from sayso.errors import InputError


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("FILE, line N", row) for each row of a CSV file that has these columns, in any order and beside others.

    Raises InputError for what is no such file, for a row that lacks a value or has too many, and for a file without
    rows.
    """
    empty = True
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{path}: no column {missing[0]}; the columns {', '.join(columns)} are needed")
            for row in reader:
                empty = False
                where = f"{path}, line {reader.line_num}"
                # What is too much stands under None: a comma in a text would cut it off or shift what follows.
                if any(row.get(None) or ()):
                    raise InputError(f"{where}: more values than columns; a text with commas needs double quotes")
                for column in columns:
                    if not (row[column] or "").strip():
                        raise InputError(f"{where}: no {column}")
                yield where, {column: row[column] for column in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    if empty:
        raise InputError(f"{path}: no rows in it")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. InputError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def seconds(start: str, end: str, where: str) -> tuple[float, float]:
    """A stretch of time, both ends in seconds. InputError says where it is none."""
    try:
        first, last = float(start), float(end)
    except ValueError:
        raise InputError(f"{where}: start {start!r} and end {end!r} must be seconds") from None
    if not 0 <= first < last < float("inf"):
        raise InputError(f"{where}: start {first} and end {last} are not a stretch of time")
    return first, last
