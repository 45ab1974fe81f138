"""The videos that a protocol asks for: which are there, and why others are not.

Videos vanish from their sites, so figures rest on those that are left, and say so. What is read here are proxies and
features of a dataset root, never a foreign file.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from sayso.errors import CorruptObject, InputError
from sayso.root import Root
from sayso.rows import Features, Media, Video

T = TypeVar("T")
_BRACKETED = re.compile(r"\[([^\[\]]+)\]$")


class Found(BaseModel):
    """How many of those that were asked for are there."""

    model_config = ConfigDict(frozen=True)

    found: int
    of: int


@dataclass(frozen=True)
class Videos:
    """What a root has of the videos that were asked for, by the id that the annotations give them."""

    root: Root
    there: Mapping[str, Media]
    missing: Mapping[str, str]
    """id -> why it is not there"""

    @property
    def found(self) -> Found:
        """How many of how many."""
        return Found(found=len(self.there), of=len(self.there) + len(self.missing))

    @functools.cached_property
    def features(self) -> Mapping[str, Features]:
        """The features of those that have some, by the root's own ids."""
        rows = self.root.table(Features).rows(video_id={media.video_id for media in self.there.values()})
        return {row.video_id: row for row in rows}

    def read(self, video_id: str) -> bytes:
        """A video's proxy. CorruptObject where the object is not there."""
        key = self.there[video_id].key
        try:
            return self.root.storage.read(key)
        except FileNotFoundError as error:
            raise self.broken(video_id, error) from None

    def broken(self, video_id: str, error: Exception) -> CorruptObject:
        """The error that names a proxy that cannot be read."""
        return CorruptObject(f"{self.there[video_id].key}: {error}; run `sayso verify`")

    @property
    def why_not(self) -> str:
        """Why the first one that is missing is."""
        return next((f"{video_id}: {why}" for video_id, why in self.missing.items()), "its clips end too early")

    def check_fps(self, fps: float) -> None:
        """InputError where a proxy has fewer frames a second than the model looks at: it would see them twice."""
        for video_id, media in self.there.items():
            if media.fps < fps - 0.01:
                raise InputError(
                    f"the proxy of {video_id} has {media.fps:g} frames a second and the model looks at {fps:g}; "
                    f"take another --root, ingested with fetch.profile.fps={math.ceil(fps)}"
                )


def videos_in_root(asked: Iterable[str], root: Root) -> Videos:
    """Look the ids of an annotation file up in a root.

    Annotations name a video by the id that its site gave it, where ours have the site's name in front (youtube:ID), or
    by the name of its file, which stands in the videos table.
    """
    media = {row.video_id: row for row in root.table(Media).rows() if row.width}
    rows = [row for row in root.table(Video).rows() if row.video_id in media and row.url.startswith("file://")]
    files = by_name((PurePosixPath(unquote(urlsplit(row.url).path)), media[row.video_id]) for row in rows)
    named = {**files, **{name.partition(":")[2]: row for name, row in media.items()}, **media}
    asked = list(dict.fromkeys(asked))
    there = {name: named[name] for name in asked if name in named}
    return Videos(root, there, {name: "not in the root" for name in asked if name not in there})


def by_name(files: Iterable[tuple[PurePath, T]]) -> dict[str, T]:
    """What belongs to each name that a file may be asked for by: its own, or the id in TITLE [ID].webm.

    So yt-dlp names files by itself. The first file of a name has it, and a whole name goes before one in brackets.
    """
    files = list(files)
    bracketed = ((_BRACKETED.search(path.stem), what) for path, what in files)
    named = [(path.stem, what) for path, what in files] + [(found[1], what) for found, what in bracketed if found]
    return dict(reversed(named))
