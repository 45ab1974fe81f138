"""The site without its sockets: a request's path and query in, an answer out."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from demo.site import captions, pages
from demo.site.catalogue import Captions, Entry, Fault, catalogue, playlists
from demo.site.feed import feed_xml
from demo.truth import VideoTruth, World

KEPT_OF_TRUNCATED = 0.55  # the part of its file that the truncated video still has
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer: text, or the first `length` bytes of a file."""

    status: int = 200
    content_type: str = HTML
    body: str = ""
    file: Path | None = None
    length: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class NotThere(Exception):
    """The site has nothing at this address."""


class Site:
    """What the site answers for one rendered world.

    world_dir: a folder that `demo.world` rendered.
    flaky_failures: how often the flaky video's file answers 503 before it is given out, counted from the start.
    retry_after: seconds that the 503 asks a client to wait.
    page_size: entries on one page of a playlist or a search.
    """

    def __init__(self, world_dir: Path, *, flaky_failures: int = 2, retry_after: int = 1, page_size: int = 10) -> None:
        self.world_dir = world_dir
        self.world = World.model_validate_json((world_dir / "world.json").read_bytes())
        self.entries = catalogue(self.world)
        self.playlists = playlists(self.entries)
        self.flaky_failures = flaky_failures
        self.retry_after = retry_after
        self.page_size = page_size
        self._by_id = {entry.id: entry for entry in self.entries}
        self._refused: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._truth = lru_cache(maxsize=None)(self._read_truth)

    def reply(self, target: str, *, base_url: str, counts: bool = True) -> Reply:
        """Answer a GET of `target` (path and query); `counts=False` (a HEAD) leaves the flaky video's counter alone.

        base_url: how the client calls this site, for addresses that must be absolute.
        """
        address = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        routes: dict[str, Callable[[], Reply]] = {
            "/": lambda: Reply(body=pages.index_page(self.entries, self.playlists)),
            "/watch": lambda: Reply(body=pages.watch_page(self.video_data(self._there(query.get("v", ""))))),
            "/playlist": lambda: self._playlist(query),
            "/results": lambda: self._results(query),
            "/feed.xml": lambda: self._feed(base_url),
            "/api/timedtext": lambda: self._captions(query),
        }
        try:
            if address.path.startswith("/media/"):
                return self._media(address.path.removeprefix("/media/").removesuffix(".mp4"), counts=counts)
            if address.path in routes:
                return routes[address.path]()
            raise NotThere("There is no such page")
        except NotThere as gone:
            return Reply(status=404, body=pages.error_page(404, str(gone)))

    def video_data(self, entry: Entry) -> dict[str, object]:
        """Return what a video's page says of it; addresses are paths of this site."""
        truth = self._truth(entry.source)
        tracks = {kind: [self._track(entry, kind, ext) for ext in exts] for kind, exts in _tracks(entry).items()}
        return {
            **pages.entry_data(entry),
            "description": f"{truth.narrator} shows how to {truth.task}.",
            "uploader": truth.uploader,
            "upload_date": truth.upload_date,
            "view_count": truth.view_count,
            "language": truth.language,
            "licence": "Apache-2.0",
            "media": f"/media/{entry.id}.mp4",
            "filesize": self._length(entry),
            "width": 320,
            "height": 240,
            "fps": 25,
            "captions": tracks,
        }

    def search(self, query: str) -> list[Entry]:
        """Return the entries that share words with the query, most shared words first, then most viewed."""
        wanted = _words(query)

        def shared(entry: Entry) -> int:
            return len(wanted & _words(f"{entry.title} {entry.task}"))

        found = [entry for entry in self.entries if shared(entry)]
        return sorted(found, key=lambda entry: (-shared(entry), -self._truth(entry.source).view_count, entry.id))

    def _there(self, video_id: str) -> Entry:
        entry = self._by_id.get(video_id)
        if entry is None or entry.fault is Fault.MISSING:
            raise NotThere("This video is no longer available")
        return entry

    def _playlist(self, query: Mapping[str, str]) -> Reply:
        name = query.get("list", "")
        if name not in self.playlists:
            raise NotThere("There is no such playlist")
        return self._list(name.replace("-", " "), list(self.playlists[name]), "/playlist", query, list_id=name)

    def _results(self, query: Mapping[str, str]) -> Reply:
        words = query.get("search_query", "")
        return self._list(f"Results for {words}", self.search(words), "/results", query, list_id=words)

    def _list(self, title: str, entries: list[Entry], path: str, query: Mapping[str, str], *, list_id: str) -> Reply:
        number = query.get("page", "1")
        page = int(number) if number.isdecimal() and len(number) < 6 else 1
        shown = entries[(page - 1) * self.page_size : page * self.page_size]
        more = page * self.page_size < len(entries)
        next_path = f"{path}?{urlencode({**query, 'page': page + 1})}" if more else None
        return Reply(body=pages.list_page(title, shown, list_id=list_id, next_path=next_path))

    def _feed(self, base_url: str) -> Reply:
        dated = [(entry, self._truth(entry.source).upload_date) for entry in self.entries]
        return Reply(content_type="application/rss+xml; charset=utf-8", body=feed_xml(base_url, dated))

    def _captions(self, query: Mapping[str, str]) -> Reply:
        entry = self._there(query.get("v", ""))
        kind = "automatic" if query.get("kind") == "asr" else "human"
        ext = query.get("fmt", "")
        if query.get("lang") != "en" or ext not in _tracks(entry).get(kind, ()):
            raise NotThere("There are no such captions")
        write, content_type = _WRITERS[kind, ext]
        return Reply(content_type=content_type, body=write(self._truth(entry.source)))

    def _media(self, video_id: str, *, counts: bool) -> Reply:
        entry = self._there(video_id)
        if entry.fault is Fault.FLAKY and self._refuses(entry.id, counts=counts):
            headers = {"Retry-After": str(self.retry_after)}
            return Reply(status=503, body=pages.error_page(503, "Too busy, try again"), headers=headers)
        return Reply(content_type="video/mp4", file=self._file(entry), length=self._length(entry))

    def _refuses(self, video_id: str, *, counts: bool) -> bool:
        with self._lock:
            refuses = self._refused[video_id] < self.flaky_failures
            if refuses and counts:
                self._refused[video_id] += 1
            return refuses

    def _file(self, entry: Entry) -> Path:
        return self.world_dir / "videos" / f"{entry.source}.mp4"

    def _length(self, entry: Entry) -> int:
        whole = self._file(entry).stat().st_size
        return int(whole * KEPT_OF_TRUNCATED) if entry.fault is Fault.TRUNCATED else whole

    def _track(self, entry: Entry, kind: str, ext: str) -> dict[str, str]:
        query = {"v": entry.id, "lang": "en", "fmt": ext, **({"kind": "asr"} if kind == "automatic" else {})}
        return {"lang": "en", "ext": ext, "url": f"/api/timedtext?{urlencode(query)}"}

    def _read_truth(self, video_id: str) -> VideoTruth:
        return VideoTruth.model_validate_json((self.world_dir / "truth" / f"{video_id}.json").read_bytes())


_WRITERS: dict[tuple[str, str], tuple[Callable[[VideoTruth], str], str]] = {
    ("human", "vtt"): (captions.human_vtt, "text/vtt; charset=utf-8"),
    ("automatic", "json3"): (captions.automatic_json3, "application/json; charset=utf-8"),
    ("automatic", "vtt"): (captions.automatic_vtt, "text/vtt; charset=utf-8"),
}


def _tracks(entry: Entry) -> dict[str, tuple[str, ...]]:
    """Return the formats of the entry's captions by kind."""
    tracks: dict[str, tuple[str, ...]] = {}
    if entry.captions is Captions.BOTH:
        tracks["human"] = ("vtt",)
    if entry.captions is not Captions.NONE:
        tracks["automatic"] = ("json3", "vtt")
    return tracks


def _words(text: str) -> set[str]:
    return set(text.lower().split()) - {"how", "to", "a", "an", "the"}
