"""Playlists, channels, pages and searches, through yt-dlp: their entries as videos, without asking for each.

An id is "<extractor>:<id>" as yt-dlp reads it off the URL, so that a video is the same wherever it is found: in a
list, in a playlist or in a search. URLs that no extractor knows get a digest of the URL.
"""

import hashlib
import re
from collections.abc import Iterator

from yt_dlp.utils import unsmuggle_url

from ingest.sites import Identity, Info, SiteClient, SiteSettings, identify
from sayso.errors import Permanent, Skip
from sayso.ids import safe, video_id
from sayso.rows import Video

_SEARCH = re.compile(r"(?P<key>[A-Za-z][\w.]*?)(?P<count>[1-9][0-9]*|all)?:(?P<query>(?!//).+)", re.DOTALL)
_DEEPEST = 3  # a channel holds tabs, a tab holds playlists, a playlist holds videos


def is_search(text: str, settings: SiteSettings) -> bool:
    """Whether `text` is a search that an extractor knows, like "ytsearch20:change a tyre"."""
    return bool(_SEARCH.fullmatch(text)) and not identify(text, settings).generic


def find(address: str, settings: SiteSettings, *, limit: int | None = None) -> Iterator[Video]:
    """Yield the videos of a URL or a search in the site's order; `rank` counts from 0, searches give a `task_id`.

    limit: take no more than so many entries of a list. Raises Skip, Retry or Permanent.
    """
    search = _SEARCH.fullmatch(address)
    task_id = safe(search["query"].strip().lower()) if search else None
    with SiteClient(settings, playlistend=limit) as client:
        for rank, entry in enumerate(_entries(client, client.info(address))):
            if rank == limit:
                return
            yield _video(entry, settings, rank=rank, task_id=task_id, found_by="search" if search else "site")


def name_video(url: str, who: Identity) -> str:
    """Return the video id of a URL."""
    return video_id(who.extractor, who.id or hashlib.sha256(url.encode()).hexdigest()[:20])


def may_be_list(who: Identity) -> bool:
    """Whether a URL has to be asked about, since its site has lists of videos at such addresses."""
    return who.single is False or (who.single is None and not who.generic)


def _entries(client: SiteClient, info: Info, depth: int = 0) -> Iterator[Info]:
    """Yield the videos of what a site answered; entries that are lists themselves are asked for theirs."""
    if info.get("_type", "video") == "video":
        yield info
        return
    for entry in info.get("entries") or ():
        if entry and (entry.get("url") or entry.get("webpage_url") or entry.get("entries")):
            yield from _entry(client, entry, depth)


def _entry(client: SiteClient, entry: Info, depth: int) -> Iterator[Info]:
    if entry.get("entries") is not None:
        yield from _entries(client, entry, depth + 1)
        return
    url = entry.get("url") or entry["webpage_url"]
    known_video = entry.get("duration") is not None
    if known_video or depth >= _DEEPEST or not may_be_list(identify(url, client.settings)):
        yield entry
        return
    try:
        inner = client.info(url)
    except (Permanent, Skip):
        yield entry  # to be fetched, refused there and counted
        return
    yield from _entries(client, inner, depth + 1)


def _video(entry: Info, settings: SiteSettings, *, rank: int, task_id: str | None, found_by: str) -> Video:
    url = str(entry.get("webpage_url") or entry.get("url"))
    plain = str(unsmuggle_url(url)[0])
    duration = entry.get("duration")
    return Video(
        video_id=name_video(plain, identify(plain, settings)),
        url=url,
        title=str(entry.get("title") or ""),
        duration=float(duration) if duration else None,
        language=entry.get("language"),
        licence=entry.get("license"),
        channel=entry.get("channel") or entry.get("uploader"),
        task_id=task_id,
        rank=rank,
        found_by=found_by,
    )
