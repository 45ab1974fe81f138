"""Lists of URLs: text (one a line), CSV or TSV with a `url` column, Parquet with a `url` column.

Further columns may say `title`, `task`, `language`, `licence`, `channel` and `duration` (seconds). A list is refused as
a whole when a line of it is not a web address: the line is named, and nothing is taken.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.addresses import is_private_name, why_not_web
from ingest.sites import SiteSettings, identify
from ingest.sources.site import find as find_on_site
from ingest.sources.site import may_be_list, name_video
from sayso.errors import InputError, Permanent, Skip
from sayso.ids import safe
from sayso.rows import Video

TEXT_SUFFIXES = (".txt", ".list", ".urls")
TABLE_SUFFIXES = {".csv": ",", ".tsv": "\t"}
PARQUET_SUFFIXES = (".parquet",)
LIST_SUFFIXES = (*TEXT_SUFFIXES, *TABLE_SUFFIXES, *PARQUET_SUFFIXES)

Line = tuple[str, Mapping[str, Any]]  # where it stands ("line 7"), its columns


def find(path: Path, settings: SiteSettings, *, limit: int | None = None) -> Iterator[Video]:
    """Yield the videos of a list in its order; URLs of playlists are opened, at most `limit` entries of each.

    The list is checked to its end before the first video is given. Raises InputError naming the first junk line, and
    Retry for a playlist whose site does not answer.
    """
    lines = list(_lines(path))
    _refuse_junk(path, lines, settings)
    for rank, (_, columns) in enumerate(lines):
        url = _text(columns, "url") or ""
        who = identify(url, settings)
        video = _video(url, name_video(url, who), columns, rank)
        yield from _opened(video, settings, limit) if may_be_list(who) else (video,)


def _opened(video: Video, settings: SiteSettings, limit: int | None) -> Iterator[Video]:
    """Yield the videos behind a URL that may be a list; what the list of URLs says holds for each of them."""
    try:
        found = list(find_on_site(video.url, settings, limit=limit))
    except (Permanent, Skip):
        yield video  # to be fetched, refused there and counted: one dead line does not spoil a list
        return
    for one in found:
        yield one.model_copy(update={"task_id": video.task_id, "language": one.language or video.language})


def _video(url: str, name: str, columns: Mapping[str, Any], rank: int) -> Video:
    task = _text(columns, "task") or _text(columns, "task_id")
    duration = _text(columns, "duration")
    return Video(
        video_id=name,
        url=url,
        title=_text(columns, "title") or "",
        duration=float(duration) if duration else None,
        language=_text(columns, "language"),
        licence=_text(columns, "licence") or _text(columns, "license"),
        channel=_text(columns, "channel"),
        task_id=safe(task) if task else None,
        rank=rank,
        found_by="list",
    )


def _refuse_junk(path: Path, lines: list[Line], settings: SiteSettings) -> None:
    """Raise InputError if the list is empty or any line of it cannot be used."""
    if not lines:
        raise InputError(f"{path}: holds no URLs")
    junk = [(where, why) for where, columns in lines if (why := _why_junk(columns, settings))]
    if junk:
        where, why = junk[0]
        more = f" (and {len(junk) - 1} more such lines)" if len(junk) > 1 else ""
        raise InputError(f"{path}, {where}: {why}{more}; mend or remove it, nothing was taken")


def _why_junk(columns: Mapping[str, Any], settings: SiteSettings) -> str | None:
    url = _text(columns, "url")
    if not url:
        return "no URL"
    if why := why_not_web(url):
        return f"{url[:60]!r} is {why}"
    if is_private_name(url) and not settings.allow_private:
        return f"{url[:60]!r} is a private address (allow_private: true allows it)"
    duration = _text(columns, "duration")
    if duration is not None and not _is_seconds(duration):
        return f"duration {duration[:20]!r} is not a number of seconds"
    return None


def _is_seconds(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def _text(columns: Mapping[str, Any], name: str) -> str | None:
    value = columns.get(name)
    text = "" if value is None or value != value else str(value).strip()  # a missing number is NaN in some writers
    return text or None


def _lines(path: Path) -> Iterable[Line]:
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        return _parquet_lines(path)
    text = _read(path)
    return _table_lines(path, text, TABLE_SUFFIXES[suffix]) if suffix in TABLE_SUFFIXES else _text_lines(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the list as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _text_lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        url = line.strip()
        if url and not url.startswith("#"):
            yield f"line {number}", {"url": url}


def _table_lines(path: Path, text: str, delimiter: str) -> Iterator[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names: list[str] | None = None
        for cells in reader:
            if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if names is None:
                names = _column_names(path, cells)
            else:
                yield f"line {reader.line_num}", dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a table ({error})") from None


def _parquet_lines(path: Path) -> Iterator[Line]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
    table = table.rename_columns(_column_names(path, table.column_names))
    for number, columns in enumerate(table.to_pylist(), start=1):
        yield f"row {number}", columns


def _column_names(path: Path, names: Iterable[str]) -> list[str]:
    tidy = [name.strip().lower() for name in names]
    if "url" not in tidy:
        raise InputError(f"{path}: has no column named url (found: {', '.join(tidy)[:80]})")
    return tidy
