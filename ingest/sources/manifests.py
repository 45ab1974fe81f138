"""Manifests of pictures with texts: captioned pictures, sequences of pictures, interleaved pages.

One shape for all: a text with one `<image>` place for each picture, and the pictures in their order. Layouts, told
apart by their columns (lists may be in JSONL and Parquet only):

    url (or image), caption (or text)     a captioned picture, as Conceptual Captions has them: "<image>caption"
    images, text                          an interleaved page with its places in the text, or, without any in it,
                                          a sequence of pictures that stand before the text
    images, texts                         OBELICS: of each index one of both, the other is null
    text_list, image_info                 MMC4: a picture stands before the sentence that it was matched to

`id` (or document_id) names a document, else its text and pictures do. Further columns may say language, licence
(license) and task. Pictures are http(s) URLs or paths relative to the manifest's folder. A row that cannot be used is
left out and counted by reason.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.addresses import is_private_name, why_not_web
from ingest.sites import SiteSettings
from ingest.sources.folder import content_id, is_file_url, path_of
from sayso.errors import InputError
from sayso.ids import document_id, safe
from sayso.rows import PLACE, Page

TABLE_SUFFIXES = {".csv": ",", ".tsv": "\t"}
LINE_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet",)
MANIFEST_SUFFIXES = (*TABLE_SUFFIXES, *LINE_SUFFIXES, *PARQUET_SUFFIXES)

_EXAMPLES = 3
_PICTURE, _CAPTION = ("url", "image", "image_url"), ("caption", "text")
_LAYOUTS = "url and caption, images and text, images and texts (OBELICS), or text_list and image_info (MMC4)"

Line: TypeAlias = tuple[str, Any]
"""Where it stands ("line 7"), and its columns."""


@dataclass
class LeftOut:
    """Rows of manifests that could not be used, by reason, and a line for each of the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, bad: BadRow) -> None:
        """Count a row."""
        self.counts[bad.reason] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{where}: {bad}")


class BadRow(Exception):
    """A row of a manifest cannot be used."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def find(path: Path, sites: SiteSettings, left_out: LeftOut) -> Iterator[Page]:
    """Yield the pages of a manifest in its order, as they are read.

    Raises InputError where it cannot be read, has no known columns, or no row of it can be used.
    """
    used = False
    first: str | None = None
    for where, columns in _lines(path):
        try:
            yield _page(path, columns, sites)
            used = True
        except BadRow as bad:
            left_out.add(f"{path}, {where}", bad)
            first = first or f"{path}, {where}: {bad}"
    if not used:
        raise InputError(f"{first}; no row can be used" if first else f"{path}: holds no rows")


def _page(path: Path, columns: Any, sites: SiteSettings) -> Page:
    if not isinstance(columns, Mapping):
        raise BadRow("not_a_row", "not an object with columns")
    columns = {str(name).strip().lower(): value for name, value in columns.items()}
    text, named = _interleaved(columns)
    if not named:
        raise BadRow("no_images", "names no picture")
    if text.count(PLACE) != len(named):
        raise BadRow("places", f"{text.count(PLACE)} {PLACE} places for {len(named)} pictures")
    if not text.replace(PLACE, "").strip():
        raise BadRow("no_text", "no text beside its pictures")
    if not _is_unicode("".join([text, *named])):
        raise BadRow("no_text", "half a character: what cut or escaped this text broke it")
    images = [_address(path, name, sites) for name in named]
    given = _text(columns, "id", "document_id")
    task = _text(columns, "task", "task_id")
    return Page(
        document_id=document_id(given or _digest(text, images)),
        text=text,
        images=images,
        language=_text(columns, "language"),
        licence=_text(columns, "licence", "license"),
        task_id=safe(task) if task else None,
        found_by="manifest",
    )


def _interleaved(columns: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The text of a row with its places, and the names of its pictures."""
    if columns.get("image_info") is not None:
        return _mmc4(columns)
    if columns.get("texts") is not None:
        return _obelics(columns)
    if columns.get("images") is not None:
        images = [_name(image) for image in _list(columns, "images")]
        text = _text(columns, *_CAPTION) or ""
        return (text if PLACE in text else PLACE * len(images) + text), images
    image = _text(columns, *_PICTURE)
    # What stands in a caption is no place.
    return PLACE + _words(_text(columns, *_CAPTION)), [image] if image else []


def _obelics(columns: Mapping[str, Any]) -> tuple[str, list[str]]:
    texts, images = _list(columns, "texts"), _list(columns, "images")
    if len(texts) != len(images):
        raise BadRow("places", f"{len(texts)} texts and {len(images)} images; of each index one is to be null")
    parts = [_words(text) if text is not None else PLACE for text in texts]
    named = [_name(image) for text, image in zip(texts, images, strict=True) if text is None]
    return "\n\n".join(parts), named


def _mmc4(columns: Mapping[str, Any]) -> tuple[str, list[str]]:
    sentences = [_words(sentence) for sentence in _list(columns, "text_list")]
    before: dict[int, list[str]] = {}
    for info in _list(columns, "image_info"):
        place = info.get("matched_text_index") if isinstance(info, Mapping) else None
        if not isinstance(place, int) or not 0 <= place < len(sentences):
            raise BadRow("places", "an image_info without a matched_text_index in text_list")
        before.setdefault(place, []).append(_name(info.get("raw_url")))
    parts = [PLACE * len(before.get(place, ())) + sentence for place, sentence in enumerate(sentences)]
    return " ".join(parts), [name for place in sorted(before) for name in before[place]]


def _list(columns: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = columns.get(name)
    if isinstance(value, list):
        return value
    raise BadRow("not_a_list", f"{name} is no list")


def _name(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise BadRow("no_images", "a picture without a URL or path")


def _words(value: Any) -> str:
    return str(value or "").replace(PLACE, " ").strip()


def _text(columns: Mapping[str, Any], *names: str) -> str | None:
    """The first of these columns that says anything. A missing text is NaN in some writers."""
    for name in names:
        value = columns.get(name)
        if value is None or value != value:
            continue
        if not isinstance(value, str | int | float) or not _is_unicode(str(value)):
            raise BadRow("no_text", f"{name} is no text; pictures inside a manifest are not taken, only URLs and paths")
        if text := str(value).strip():
            return text
    return None


def _is_unicode(text: str) -> bool:
    """Whether a text can be written. JSON may hold halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _address(manifest: Path, name: str, sites: SiteSettings) -> str:
    """The URL of a picture; paths are relative to the manifest's folder."""
    if "://" not in name:
        try:
            return (manifest.parent / Path(name).expanduser()).resolve().as_uri()
        except (OSError, ValueError, RuntimeError) as error:
            raise BadRow("bad_url", f"{name[:60]!r} is no path ({error})") from None
    if why := why_not_web(name):
        raise BadRow("bad_url", f"{name[:60]!r} is {why}")
    if is_private_name(name) and not sites.allow_private:
        raise BadRow("private_address", f"{name[:60]!r} is a private address (sites.allow_private=true allows it)")
    return name


def _digest(text: str, images: Sequence[str]) -> str:
    """An id from what a document is made of: of files their content, so that a folder may be moved."""
    parts = [text, *(_content(image) for image in images)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _content(url: str) -> str:
    if not is_file_url(url):
        return url
    try:
        return content_id(path_of(url))
    except OSError:
        return url  # refused and counted when it is fetched


def _lines(path: Path) -> Iterator[Line]:
    suffix = path.suffix.lower()
    try:
        if suffix in PARQUET_SUFFIXES:
            yield from _parquet_lines(path)
        elif suffix in LINE_SUFFIXES:
            yield from _json_lines(path)
        else:
            yield from _table_lines(path, TABLE_SUFFIXES[suffix])
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _json_lines(path: Path) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", _parsed(line)


def _parsed(line: str) -> Any:
    """What a line holds; None where it is not JSON."""
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None


def _parquet_lines(path: Path) -> Iterator[Line]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1024):
                for columns in batch.to_pylist():
                    number += 1
                    yield f"row {number}", columns
    except pa.ArrowException as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None


def _table_lines(path: Path, delimiter: str) -> Iterator[Line]:
    """Of a table whose first row is no header, as Conceptual Captions' are, the column with a URL is the picture's."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        quoted = delimiter == ","
        reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        names: list[str] | None = None
        try:
            for cells in reader:
                if names is None:
                    names = _headless(cells)
                    if names is None:
                        names = cells
                        _check_columns(path, names)
                        continue
                if any(cell.strip() for cell in cells):
                    yield f"line {reader.line_num}", dict(zip(names, cells, strict=False))
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not a table ({error})") from None


def _headless(cells: Sequence[str]) -> list[str] | None:
    """Names for two columns of which one holds a URL, not a name."""
    are_urls = [cell.strip().lower().startswith(("http://", "https://")) for cell in cells]
    if len(cells) != 2 or sum(are_urls) != 1:
        return None
    return ["url" if is_url else "caption" for is_url in are_urls]


def _check_columns(path: Path, names: Sequence[str]) -> None:
    there = {name.strip().lower() for name in names}
    pair = there & set(_PICTURE) and there & set(_CAPTION)
    lists = "images" in there and there & {"texts", *_CAPTION}
    if not (pair or lists or {"text_list", "image_info"} <= there):
        raise InputError(f"{path}: no known columns (found: {', '.join(names)[:80]}); give {_LAYOUTS}")
