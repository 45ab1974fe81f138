"""Discover: from what a person gives to rows of the videos table.

A person gives a folder or a file of media, a list of URLs, a feed, a page or playlist, or a search; `discover` finds
out which, yields its videos once each, and `record` adds those that the table does not have.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ingest.addresses import is_private_name, why_not_web
from ingest.sites import SiteClient, SiteSettings, identify
from ingest.sources import feed, folder, lists, site
from sayso.arrow import MADE_BY, MADE_FROM
from sayso.config import Settings
from sayso.errors import InputError, Retry, RowError, WorkFailed
from sayso.root import Root
from sayso.rows import Forgotten, Video

_FEED_BYTES = 32 << 20
_COMMIT_ROWS = 10_000


class DiscoverSettings(Settings):
    """What is taken of the sources that a person gives."""

    limit: int | None = Field(default=None, ge=1, description="most videos of one folder, playlist, feed or search")
    language: str | None = Field(default=None, description="language of videos whose source does not say it")


@dataclass(frozen=True)
class Recorded:
    """How many videos were new to the table, and how many it had."""

    new: int
    known: int


def discover(
    given: Sequence[str], settings: DiscoverSettings | None = None, sites: SiteSettings | None = None
) -> Iterator[Video]:
    """Yield the videos of everything given, each video_id once, in order.

    Raises InputError (one line, naming what was given) for what cannot be used and WorkFailed for a site that does
    not answer at present. Videos yielded before that are good.
    """
    settings, sites = settings or DiscoverSettings(), sites or SiteSettings()
    seen: set[str] = set()
    for text in given:
        for video in _named_errors(text, _videos(text, settings, sites)):
            if video.video_id in seen:
                continue
            seen.add(video.video_id)
            yield video if video.language else video.model_copy(update={"language": settings.language})


def record(root: Root, videos: Iterable[Video]) -> Recorded:
    """Add the videos that the table does not have yet; rows that are there stay as they are, forgotten ones stay away.

    Commits once `videos` has been read to its end, so an error in a source adds nothing. Of two of these at the same
    time the second to commit raises RootBusy, as it cannot know what the first has added.
    """
    table = root.table(Video)
    writer = table.writer("discover")  # opened before the look at what is there, so that it stands on no later version
    known = {*table.keys().to_pylist(), *root.table(Forgotten).keys().to_pylist()}
    found = list(videos)
    new = [video for video in found if video.video_id not in known]
    for start in range(0, len(new), _COMMIT_ROWS):
        rows = new[start : start + _COMMIT_ROWS]
        records = [{**row.model_dump(), MADE_BY: "discover", MADE_FROM: row.found_by} for row in rows]
        writer.append(records)
    return Recorded(new=len(new), known=len(found) - len(new))


def _videos(text: str, settings: DiscoverSettings, sites: SiteSettings) -> Iterator[Video]:
    """Find out what kind of source `text` is and yield its videos."""
    if text.lower().startswith(("http://", "https://")):
        return _web_videos(text, settings, sites)
    path = Path(text).expanduser()
    if text and path.exists():
        return _local_videos(path, settings, sites)
    if "://" not in text and site.is_search(text, sites):
        return site.find(text, sites, limit=settings.limit)
    raise InputError(
        f"{text}: no such file or folder; give a folder of videos, a list of URLs ({', '.join(lists.LIST_SUFFIXES)}), "
        'an http(s) URL, or a search like "ytsearch20:change a tyre"'
    )


def _local_videos(path: Path, settings: DiscoverSettings, sites: SiteSettings) -> Iterator[Video]:
    suffix = path.suffix.lower()
    if path.is_dir() or folder.is_media(path):
        yield from _first(folder.find(path), settings.limit)
    elif suffix in lists.LIST_SUFFIXES:
        yield from lists.find(path, sites, limit=settings.limit)
    elif suffix in feed.FEED_SUFFIXES:
        yield from feed.find(str(path), path.read_bytes(), sites, limit=settings.limit)
    else:
        known = ", ".join((*folder.VIDEO_SUFFIXES[:5], *lists.LIST_SUFFIXES, *feed.FEED_SUFFIXES))
        raise InputError(f"{path}: neither media, nor a list of URLs, nor a feed by its name (known: {known}, ...)")


def _web_videos(url: str, settings: DiscoverSettings, sites: SiteSettings) -> Iterator[Video]:
    if why := why_not_web(url):
        raise InputError(f"{url}: {why}")
    if is_private_name(url) and not sites.allow_private:
        raise InputError(f"{url}: a private address; set allow_private to true to allow it")
    if identify(url, sites).generic:
        with SiteClient(sites) as client:
            content_type, head = client.read(url, 4096)
            if feed.looks_like_feed(content_type, head):
                _, data = client.read(url, _FEED_BYTES)
                yield from feed.find(url, data, sites, limit=settings.limit)
                return
    yield from site.find(url, sites, limit=settings.limit)


def _named_errors(text: str, videos: Iterator[Video]) -> Iterator[Video]:
    """Say which of the things given a site's refusal is about."""
    try:
        yield from videos
    except Retry as error:
        raise WorkFailed(f"{text}: {error.message}; try again later") from error
    except RowError as error:
        raise InputError(f"{text}: {error.message}") from error


def _first(videos: Iterator[Video], limit: int | None) -> Iterator[Video]:
    for number, video in enumerate(videos):
        if number == limit:
            return
        yield video
