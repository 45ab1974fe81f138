"""The stage images: the pictures of a page brought here, each made into our own JPEG, and published as a document.

All keys are derived from the document's id and the picture's place, so fetching twice writes the same objects. Links
to pictures rot: a picture that is gone for good is left out with its place in the text, or drops its document
(`missing`). One that may come later makes the whole document wait.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ingest.jpeg import MADE_WITH, JpegSettings, to_jpeg
from ingest.refusals import is_unknown_host
from ingest.sites import SiteClient, SiteSettings
from ingest.sources.folder import is_file_url, path_of
from sayso.config import Settings
from sayso.errors import Permanent, Retry, RowError, Skip
from sayso.root import Root
from sayso.rows import PLACE, Document, Forgotten, Page, Picture
from sayso.stage import Stage


class ImagesSettings(Settings):
    """How the pictures of documents are brought here and what is kept of them."""

    jpeg: JpegSettings = JpegSettings()
    missing: Literal["drop_place", "drop_document"] = Field(
        "drop_place",
        description="of a document that lacks a picture: drop the picture's place in the text, or the whole document; "
        "a document without any picture left is always dropped",
    )
    max_images: int = Field(64, ge=1, description="documents with more pictures are dropped")
    max_bytes: int = Field(32 << 20, gt=0, description="larger files are refused")
    download_seconds: float = Field(60.0, gt=0, description="wall-clock seconds that one download may take")


class Images(Stage[Page, Document]):
    """Fetches the pictures of each page."""

    name: ClassVar[str] = "images"
    reads = Page
    writes = Document

    def __init__(self, root: Root, settings: ImagesSettings, sites: SiteSettings | None = None) -> None:
        """`sites` says how web sites are asked, which videos share."""
        super().__init__(root)
        self.settings = settings
        self.sites = sites or SiteSettings()
        self.online = False
        """Whether this worker has had anything from the web: without a network no host's name is known."""

    def time_limit(self, row: Page) -> float:
        """What the downloads and conversions may take together; each ends itself before the worker is ended."""
        one = (1 + self.sites.retries) * self.settings.download_seconds + self.settings.jpeg.seconds
        return 60.0 + one * min(len(row.images), self.settings.max_images)

    def open(self) -> None:
        """Find what is not to be fetched again. Nobody forgets anything while a run works."""
        self.forgotten = {*self.root.table(Forgotten).keys().to_pylist()}

    def __call__(self, row: Page) -> Sequence[Document]:
        """The document, its pictures published.

        Raises Skip with the reason of the first picture that is gone, where the document is dropped for it;
        Skip("too_many_pictures"); Retry where a picture may come later; NoSpace.
        """
        if row.document_id in self.forgotten:
            raise Skip("forgotten", "somebody asked for it to be forgotten")
        if len(row.images) > self.settings.max_images:
            raise Skip("too_many_pictures", f"{len(row.images)} pictures are more than {self.settings.max_images}")
        with tempfile.TemporaryDirectory(prefix="sayso-") as name, _Fetcher(self, Path(name)) as fetcher:
            found = [fetcher.picture(row.document_id, place, url) for place, url in enumerate(row.images)]
        pictures = [each for each in found if isinstance(each, Picture)]
        gone = [each for each in found if isinstance(each, _Gone)]
        if gone and (self.settings.missing == "drop_document" or not pictures):
            raise Skip(gone[0].error.reason, f"{gone[0].url}: {gone[0].error.message}")
        return [
            Document(
                document_id=row.document_id,
                text=_without_places(row.text, [isinstance(each, Picture) for each in found]),
                images=pictures,
                lost=[f"{each.error.reason} {each.url}" for each in gone],
                language=row.language,
                licence=row.licence,
                task_id=row.task_id,
                normalised_with=MADE_WITH,
            )
        ]


def _without_places(text: str, kept: Sequence[bool]) -> str:
    """A text with one place for each picture, without the places of those that are not kept."""
    first, *rest = text.split(PLACE)
    return first + "".join((PLACE if keep else "") + part for keep, part in zip(kept, rest, strict=True))


@dataclass(frozen=True)
class _Gone:
    """A picture that cannot be had."""

    url: str
    error: RowError


class _Fetcher:
    """Brings pictures of one page here, one after the other. Use as a context manager."""

    def __init__(self, stage: Images, folder: Path) -> None:
        self._stage, self._settings, self._folder = stage, stage.settings, folder
        self._opened = ExitStack()

    def __enter__(self) -> _Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @cached_property
    def _client(self) -> SiteClient:
        return self._opened.enter_context(SiteClient(self._stage.sites))

    def picture(self, document_id: str, place: int, url: str) -> Picture | _Gone:
        """A picture, published; _Gone where it is gone for good. Raises Retry and NoSpace."""
        try:
            source = _local(url, self._settings) if is_file_url(url) else self._download(url)
            made = to_jpeg(source, self._folder / "picture.jpg", self._settings.jpeg)
        except (Permanent, Skip) as error:
            return _Gone(url, error)
        except Retry as error:
            # Most links rot by their host's end, and waiting for one would keep its document for ever.
            if self._stage.online and is_unknown_host(error):
                return _Gone(url, Permanent("no_such_host", error.message))
            raise
        stored = self._stage.root.storage.put_file(made.path, f"media/{document_id}/{place}.jpg")
        return Picture(**stored.model_dump(), width=made.width, height=made.height, url=url)

    def _download(self, url: str) -> Path:
        limit = self._settings.max_bytes
        _, data = self._client.read(url, limit + 1, seconds=self._settings.download_seconds)
        self._stage.online = True
        _refuse_size(len(data), limit)
        path = self._folder / "foreign"
        path.write_bytes(data)
        return path


def _local(url: str, settings: ImagesSettings) -> Path:
    path = path_of(url)
    try:
        size = path.stat().st_size
        readable = path.is_file() and os.access(path, os.R_OK)
    except FileNotFoundError:
        raise Permanent("file_missing", f"{path}: no such file") from None
    except OSError as error:
        raise Permanent("file_unreadable", f"{path}: {error.strerror}") from None
    if not readable:
        raise Permanent("file_unreadable", f"{path}: not a file that can be read")
    _refuse_size(size, settings.max_bytes)
    return path


def _refuse_size(size: int, limit: int) -> None:
    if size > limit:
        raise Skip("too_big", f"more than max_bytes ({limit})")
