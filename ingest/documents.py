"""Discover documents: from manifests of pictures with texts to rows of the pages table.

Manifests may have many millions of rows, so they are recorded as they are read: a run that is killed goes on with
those that are not there yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from ingest.discover import DiscoverSettings, Recorded
from ingest.sites import SiteSettings
from ingest.sources.manifests import MANIFEST_SUFFIXES, LeftOut, find
from sayso.arrow import MADE_BY, MADE_FROM
from sayso.errors import InputError
from sayso.root import Root
from sayso.rows import Forgotten, Page

_COMMIT_ROWS = 10_000


def discover_documents(
    given: Sequence[str],
    left_out: LeftOut,
    settings: DiscoverSettings | None = None,
    sites: SiteSettings | None = None,
) -> Iterator[Page]:
    """Yield the pages of every manifest, in order; rows that cannot be used are counted in `left_out`.

    Raises InputError (one line, naming the manifest) for what cannot be used.
    """
    settings, sites = settings or DiscoverSettings(), sites or SiteSettings()
    paths = [path for text in given for path in _manifests(text)]
    for path in paths:
        for page in islice(find(path, sites, left_out), settings.limit):
            yield page if page.language else page.model_copy(update={"language": settings.language})


def _manifests(text: str) -> list[Path]:
    """A manifest, or all those in a folder, by name."""
    path = Path(text).expanduser()
    found = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    taken = [file for file in found if file.suffix.lower() in MANIFEST_SUFFIXES]
    if not taken:
        what = "no manifest in it" if path.is_dir() else "no manifest by its name" if found else "no such file"
        raise InputError(f"{text}: {what}; give a manifest of pictures with texts ({', '.join(MANIFEST_SUFFIXES)})")
    return taken


def record_pages(root: Root, pages: Iterable[Page]) -> Recorded:
    """Add the pages that the table does not have yet, some at a time; rows that are there stay as they are, forgotten
    ones stay away.

    Of two of these at the same time the second to commit raises RootBusy.
    """
    table = root.table(Page)
    writer = table.writer("discover")  # opened before the look at what is there, so that it stands on no later version
    known = {*table.keys().to_pylist(), *root.table(Forgotten).keys().to_pylist()}
    before, count = len(known), 0
    waiting = iter(pages)
    while some := list(islice(waiting, _COMMIT_ROWS)):
        count += len(some)
        new = {page.document_id: page for page in reversed(some) if page.document_id not in known}
        writer.append([{**row.model_dump(), MADE_BY: "discover", MADE_FROM: row.found_by} for row in new.values()])
        known |= new.keys()
    return Recorded(new=len(known) - before, known=count - (len(known) - before))
