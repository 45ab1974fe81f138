"""The site's pages: plain HTML that a person can look at, each with its data as JSON for the extractor.

Big sites carry the data of a page in a script tag; so does this one (`<script id="site-data">`). Everything that comes
from the world or from the address is escaped.
"""

import json
from collections.abc import Iterable, Mapping
from html import escape
from urllib.parse import quote, urlencode

from demo.site.catalogue import Entry

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; color: #222;
       background: #faf8f4 }
header { display: flex; gap: 1rem; align-items: center; border-bottom: 2px solid #d9742b; margin-bottom: 1rem }
header a { font-weight: bold; color: #d9742b; text-decoration: none; font-size: 1.3rem }
input { font: inherit; padding: .2rem .5rem } ol { padding: 0; list-style: none }
li { padding: .4rem 0; border-bottom: 1px solid #e8e2d8 } small { color: #6b6459 }
video { width: 100%; max-width: 640px; background: #000; border-radius: 6px }
"""


def index_page(entries: Iterable[Entry], playlists: Mapping[str, tuple[Entry, ...]]) -> str:
    """Return the front page: every entry and every playlist."""
    lists = ", ".join(
        f'<a href="{_playlist_path(name)}">{escape(name)}</a> ({len(of_list)})' for name, of_list in playlists.items()
    )
    body = f"<h1>How-to videos</h1>{_listing(entries)}<h2>Playlists</h2><p>{lists}</p>"
    return _page("How-to videos", body)


def list_page(title: str, entries: Iterable[Entry], *, list_id: str, next_path: str | None) -> str:
    """Return one page of a playlist or of a search; the data name the path of the next page, if there is one."""
    shown = list(entries)
    data = {"id": list_id, "title": title, "entries": [entry_data(entry) for entry in shown], "next": next_path}
    more = f'<p><a href="{escape(next_path)}">More</a></p>' if next_path else ""
    return _page(title, f"<h1>{escape(title)}</h1>{_listing(shown)}{more}", data)


def watch_page(data: Mapping[str, object]) -> str:
    """Return a video's page; `data` is what `Site.video_data` says of it."""
    title = escape(str(data["title"]))
    about = f"{data['uploader']} · {data['view_count']} views · {data['upload_date']}"
    body = (
        f'<h1>{title}</h1><video controls src="{escape(str(data["media"]))}"></video>'
        f"<p><small>{escape(about)}</small></p><p>{escape(str(data['description']))}</p>"
    )
    return _page(str(data["title"]), body, data)


def error_page(status: int, message: str) -> str:
    """Return what a person sees in place of a page."""
    return _page(message, f"<h1>{escape(message)}</h1><p><small>{status}</small></p>")


def entry_data(entry: Entry) -> dict[str, object]:
    """Return what a list says of an entry; it does not say that a video is missing, as sites' lists do not."""
    return {"id": entry.id, "url": watch_path(entry.id), "title": entry.title, "duration": entry.duration}


def watch_path(video_id: str) -> str:
    """Return the path of a video's page."""
    return f"/watch?{urlencode({'v': video_id})}"


def _playlist_path(list_id: str) -> str:
    return f"/playlist?list={quote(list_id)}"


def _listing(entries: Iterable[Entry]) -> str:
    rows = "".join(
        f'<li><a href="{watch_path(entry.id)}">{escape(entry.title)}</a> <small>{entry.duration:.0f} s</small></li>'
        for entry in entries
    )
    return f"<ol>{rows}</ol>"


def _page(title: str, body: str, data: Mapping[str, object] | None = None) -> str:
    script = "" if data is None else f'<script type="application/json" id="site-data">{_script_json(data)}</script>'
    search = '<form action="/results"><input name="search_query" placeholder="Search" aria-label="Search"></form>'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        '<link rel="alternate" type="application/rss+xml" href="/feed.xml"></head>'
        f'<body><header><a href="/">sayso demo</a>{search}</header>{body}{script}</body></html>\n'
    )


def _script_json(data: Mapping[str, object]) -> str:
    """Return JSON that cannot end the script tag it stands in."""
    return json.dumps(data).replace("<", "\\u003c")
