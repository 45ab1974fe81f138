"""yt-dlp extractors for the demo site: watch pages, playlists, result pages and the search prefix `saysosearch`.

    yt-dlp --plugin-dirs demo/plugins http://127.0.0.1:8000/watch?v=ID
    yt-dlp --plugin-dirs demo/plugins --extractor-args "saysodemo:base_url=http://127.0.0.1:8000" "saysosearch5:soup"

Through the Python API, in any process (a new worker, or one that has made a YoutubeDL before):

    from yt_dlp.globals import plugin_dirs
    from yt_dlp.plugins import load_all_plugins
    plugin_dirs.value = ["default", str(demo.site.PLUGIN_DIR)]    # yt-dlp reads a module-wide list, not a parameter
    load_all_plugins()                                            # YoutubeDL() does this only once a process
    YoutubeDL({"extractor_args": {"saysodemo": {"base_url": ["http://127.0.0.1:8000"]}}})

The folder given is the one that holds `<any name>/yt_dlp_plugins/extractor/*.py`, two levels above the package.
The extractors take loopback hosts only; a caller that refuses private addresses must allow them for this site.
"""
# mypy: disable-error-code="misc,no-any-return"
# yt-dlp has no types: its classes and what they return are Any to mypy, which a strict check refuses.

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urljoin

from yt_dlp.extractor.common import InfoExtractor, SearchInfoExtractor
from yt_dlp.utils import ExtractorError

_SITE = r"https?://(?:localhost|127(?:\.[0-9]+){3}|\[::1\])(?::[0-9]+)?"
_DATA = r'<script type="application/json" id="site-data">'

Info = dict[str, Any]


class SaysoDemoIE(InfoExtractor):
    """A video's page, e.g. http://127.0.0.1:8000/watch?v=AbCdEfGhIjK."""

    IE_NAME = "saysodemo"
    _RETURN_TYPE = "video"
    _VALID_URL = _SITE + r"/watch\?(?:[^#]*&)?v=(?P<id>[0-9A-Za-z_-]{11})(?:[&#]|$)"

    def _real_extract(self, url: str) -> Info:
        video_id = self._match_id(url)
        data = self._search_json(_DATA, self._download_webpage(url, video_id), "page data", video_id)
        copied = ("title", "description", "duration", "uploader", "upload_date", "view_count", "language")
        return {
            "id": video_id,
            **{key: data.get(key) for key in copied},
            "channel": data.get("uploader"),
            "license": data.get("licence"),
            "formats": [_media_format(url, data)],
            "subtitles": _caption_tracks(url, data, "human"),
            "automatic_captions": _caption_tracks(url, data, "automatic"),
        }


class _ListIE(InfoExtractor):
    """What playlists and searches share: pages of entries, each page naming the next."""

    _RETURN_TYPE = "playlist"

    def _entries(self, url: str, list_id: str) -> Iterator[Info]:
        for number in itertools.count(1):
            page = self._download_webpage(url, list_id, note=f"Downloading page {number}")
            data = self._search_json(_DATA, page, "page data", list_id)
            for entry in data["entries"]:
                yield self.url_result(
                    urljoin(url, entry["url"]),
                    SaysoDemoIE,
                    entry["id"],
                    entry["title"],
                    duration=entry["duration"],
                )
            if not data["next"]:
                return
            url = urljoin(url, data["next"])


class SaysoDemoPlaylistIE(_ListIE):
    """A playlist, e.g. http://127.0.0.1:8000/playlist?list=everything."""

    IE_NAME = "saysodemo:playlist"
    _VALID_URL = _SITE + r"/playlist\?(?:[^#]*&)?list=(?P<id>[0-9A-Za-z_-]+)"

    def _real_extract(self, url: str) -> Info:
        playlist_id = self._match_id(url)
        return self.playlist_result(self._entries(url, playlist_id), playlist_id, playlist_id.replace("-", " "))


class SaysoDemoSearchURLIE(_ListIE):
    """A page of results, e.g. http://127.0.0.1:8000/results?search_query=soup."""

    IE_NAME = "saysodemo:search_url"
    _VALID_URL = _SITE + r"/results\?(?:[^#]*&)?search_query=(?P<id>[^&#]+)"

    def _real_extract(self, url: str) -> Info:
        query = self._match_id(url)
        return self.playlist_result(self._entries(url, query), query, query)


class SaysoDemoSearchIE(_ListIE, SearchInfoExtractor):
    """A search, e.g. "saysosearch5:how to make a soup"; the site is named by the extractor argument base_url."""

    IE_NAME = "saysodemo:search"
    _SEARCH_KEY = "saysosearch"

    def _search_results(self, query: str) -> Iterator[Info]:
        given = self._configuration_arg("base_url", [], ie_key="SaysoDemo", casesense=True)
        if not given:
            raise ExtractorError(
                "which site? name it with the extractor argument saysodemo:base_url=http://HOST:PORT", expected=True
            )
        yield from self._entries(urljoin(given[0], f"/results?{urlencode({'search_query': query})}"), query)


def _media_format(page_url: str, data: Info) -> Info:
    return {
        "format_id": "240p",
        "url": urljoin(page_url, data["media"]),
        "ext": "mp4",
        "vcodec": "h264",
        "acodec": "aac",
        **{key: data.get(key) for key in ("width", "height", "fps", "filesize")},
    }


def _caption_tracks(page_url: str, data: Info, kind: str) -> dict[str, list[Info]]:
    """Return the tracks of one kind as yt-dlp wants them: language -> formats."""
    tracks: dict[str, list[Info]] = {}
    for track in data["captions"].get(kind, ()):
        found = {"ext": track["ext"], "url": urljoin(page_url, track["url"]), "name": "English"}
        tracks.setdefault(track["lang"], []).append(found)
    return tracks
