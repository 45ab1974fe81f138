"""The site's feed: RSS 2.0 with the media extension (https://www.rssboard.org/media-rss)."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime

from demo.site.catalogue import Entry
from demo.site.pages import watch_path

_MEDIA = "http://search.yahoo.com/mrss/"


def feed_xml(base_url: str, entries: Iterable[tuple[Entry, str]]) -> str:
    """Return the feed of the entries, each given with its upload date (YYYYMMDD), newest first."""
    ET.register_namespace("media", _MEDIA)
    rss = ET.Element("rss", version="2.0")
    channel = ET.SubElement(rss, "channel")
    _text(channel, "title", "How-to videos")
    _text(channel, "link", f"{base_url}/")
    _text(channel, "description", "Narrated how-to videos of the sayso demo world")
    _text(channel, "language", "en")
    for entry, upload_date in sorted(entries, key=lambda pair: (pair[1], pair[0].id), reverse=True):
        _item(channel, base_url, entry, upload_date)
    return ET.tostring(rss, encoding="unicode", xml_declaration=True)


def _item(channel: ET.Element, base_url: str, entry: Entry, upload_date: str) -> None:
    item = ET.SubElement(channel, "item")
    _text(item, "title", entry.title)
    _text(item, "link", base_url + watch_path(entry.id))
    guid = _text(item, "guid", entry.id)
    guid.set("isPermaLink", "false")
    day = datetime.strptime(upload_date, "%Y%m%d").replace(tzinfo=UTC)
    _text(item, "pubDate", format_datetime(day, usegmt=True))
    content = ET.SubElement(item, f"{{{_MEDIA}}}content")
    content.set("url", f"{base_url}/media/{entry.id}.mp4")
    content.set("type", "video/mp4")
    content.set("medium", "video")
    content.set("duration", f"{entry.duration:.0f}")


def _text(parent: ET.Element, tag: str, text: str) -> ET.Element:
    element = ET.SubElement(parent, tag)
    element.text = text
    return element
