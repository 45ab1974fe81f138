"""RSS 2.0 and Atom feeds, from a file or the web: their items as videos.

A feed names a page for every item, and sometimes the media itself (an enclosure, media:content). The page is taken
where an extractor knows its site, the media where none does.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from ingest.addresses import why_not_web
from ingest.sites import SiteSettings, identify
from ingest.sources.site import name_video
from sayso.errors import InputError
from sayso.rows import Video

FEED_SUFFIXES = (".rss", ".atom", ".xml")

_ATOM = "{http://www.w3.org/2005/Atom}"
_MEDIA = "{http://search.yahoo.com/mrss/}"
_ITUNES = "{http://www.itunes.com/dtds/podcast-1.0.dtd}"


def looks_like_feed(content_type: str, data: bytes) -> bool:
    """Whether a resource is a feed, by the first bytes of its text (the type it is sent under is often wrong)."""
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    is_xml = head.startswith((b"<?xml", b"<rss", b"<feed")) or "xml" in content_type
    return is_xml and any(root in head for root in (b"<rss", b"<feed"))


def find(name: str, data: bytes, settings: SiteSettings, *, limit: int | None = None) -> Iterator[Video]:
    """Yield the videos of a feed in its order.

    name: what the person gave, for errors. Raises InputError if it is not RSS or Atom or has no item with a link.
    """
    root = _parse(name, data)
    items = root.findall("channel/item") if root.tag == "rss" else root.findall(f"{_ATOM}entry")
    videos = [video for item in items if (video := _video(item, settings))]
    if not videos:
        raise InputError(f"{name}: a feed without an item that links to a video")
    for rank, video in enumerate(videos[:limit]):
        yield video.model_copy(update={"rank": rank})


class _NoDoctype(ET.TreeBuilder):
    """Builds a tree and refuses document types: entities in one can grow without bound or read files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError(f"a feed must not declare a document type ({name})")


def _parse(name: str, data: bytes) -> ET.Element:
    parser = ET.XMLParser(target=_NoDoctype())  # noqa: S314  # document types, where the attacks are, are refused
    try:
        parser.feed(data)
        root: ET.Element = parser.close()
    except ET.ParseError as error:
        raise InputError(f"{name}: not a feed that can be read ({error})") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if root.tag not in ("rss", f"{_ATOM}feed"):
        raise InputError(f"{name}: XML, but neither RSS nor Atom (its root is {root.tag})")
    return root


def _video(item: ET.Element, settings: SiteSettings) -> Video | None:
    page, media = _page(item), _media(item)
    usable = [url for url in (page, media) if url and not why_not_web(url)]
    if not usable:
        return None
    who = identify(usable[0], settings)
    if who.generic and len(usable) == 2:
        url = usable[1]
        who = identify(url, settings)
    else:
        url = usable[0]
    return Video(
        video_id=name_video(url, who),
        url=url,
        title=(item.findtext("title") or item.findtext(f"{_ATOM}title") or "").strip(),
        duration=_duration(item),
        found_by="feed",
    )


def _page(item: ET.Element) -> str | None:
    if text := item.findtext("link"):
        return text.strip()
    links = item.findall(f"{_ATOM}link")
    return next((link.get("href") for link in links if link.get("rel", "alternate") == "alternate"), None)


def _media(item: ET.Element) -> str | None:
    named = [
        *((part.get("url"), part.get("type", "")) for part in item.iter(f"{_MEDIA}content")),
        *((part.get("url"), part.get("type", "")) for part in item.findall("enclosure")),
        *((part.get("href"), part.get("type", "")) for part in item.findall(f"{_ATOM}link[@rel='enclosure']")),
    ]
    return next((url for url, kind in named if url and kind.startswith(("video/", "audio/", "application/"))), None)


def _duration(item: ET.Element) -> float | None:
    content = item.find(f".//{_MEDIA}content")
    text = (content.get("duration") if content is not None else None) or item.findtext(f"{_ITUNES}duration") or ""
    try:
        parts = [float(part) for part in text.strip().split(":")]
    except ValueError:
        return None
    return sum(part * 60**place for place, part in enumerate(reversed(parts))) or None
