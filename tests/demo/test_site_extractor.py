"""yt-dlp's own Python API against the real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from yt_dlp import YoutubeDL
from yt_dlp.globals import plugin_dirs
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.plugins import load_all_plugins
from yt_dlp.utils import DownloadError

from demo.site import PLUGIN_DIR
from demo.site.catalogue import Captions, Entry, Fault
from demo.site.server import serve
from demo.site.site import Site


@pytest.fixture(scope="module")
def base_url(tiny_world: Path) -> Iterator[str]:
    plugin_dirs.value = [str(PLUGIN_DIR)]
    load_all_plugins()
    with serve(tiny_world) as url:
        yield url


@pytest.fixture
def site(tiny_world: Path) -> Site:
    return Site(tiny_world, page_size=3)


@contextmanager
def closing_refusals(ydl: Any) -> Iterator[None]:
    """Close the answers of refused requests, which yt-dlp leaves to the garbage collector."""
    urlopen, refusals = ydl.urlopen, ExitStack()

    def closing_urlopen(request: Any) -> Any:
        try:
            return urlopen(request)
        except HTTPError as error:
            refusals.callback(error.close)
            raise

    ydl.urlopen = closing_urlopen
    with refusals:
        yield


def ask(query: str, *, base_url: str = "", download: bool = False, **params: Any) -> dict[str, Any]:
    arguments = {"saysodemo": {"base_url": [base_url]}} if base_url else {}
    options = {"quiet": True, "noprogress": True, "extractor_args": arguments, **params}
    with YoutubeDL(options) as ydl, closing_refusals(ydl):
        info: dict[str, Any] = ydl.sanitize_info(ydl.extract_info(query, download=download))
        return info


def entry_with(site: Site, *, fault: Fault = Fault.NONE, captions: Captions | None = None) -> Entry:
    return next(entry for entry in site.entries if entry.fault is fault and captions in (None, entry.captions))


def test_a_video_is_found_with_what_its_page_says(base_url: str, site: Site) -> None:
    entry = entry_with(site)
    info = ask(f"{base_url}/watch?v={entry.id}")
    assert (info["extractor"], info["id"], info["title"]) == ("saysodemo", entry.id, entry.title)
    assert (info["width"], info["height"], info["fps"], info["duration"]) == (320, 240, 25, entry.duration)
    assert info["upload_date"].startswith("202401")
    assert info["filesize"] == (site.world_dir / "videos" / f"{entry.source}.mp4").stat().st_size


def test_a_video_is_downloaded_byte_for_byte(base_url: str, site: Site, tmp_path: Path) -> None:
    entry = entry_with(site)
    ask(f"{base_url}/watch?v={entry.id}", download=True, outtmpl=str(tmp_path / "media.%(ext)s"))
    source = site.world_dir / "videos" / f"{entry.source}.mp4"
    assert (tmp_path / "media.mp4").read_bytes() == source.read_bytes()


def test_a_playlist_is_read_over_all_its_pages(base_url: str, site: Site) -> None:
    info = ask(f"{base_url}/playlist?list=everything", extract_flat=True)
    assert [entry["id"] for entry in info["entries"]] == [entry.id for entry in site.entries]
    assert all(entry["url"].startswith(base_url) for entry in info["entries"])


def test_a_search_takes_as_many_as_asked_for(base_url: str, site: Site) -> None:
    query = "how to make a carrot soup"
    for count in (1, 2):
        info = ask(f"saysosearch{count}:{query}", base_url=base_url, extract_flat=True)
        assert [entry["id"] for entry in info["entries"]] == [entry.id for entry in site.search(query)[:count]]


def test_a_page_of_results_is_a_search(base_url: str, site: Site) -> None:
    info = ask(f"{base_url}/results?search_query=carrot", extract_flat=True)
    assert [entry["id"] for entry in info["entries"]] == [entry.id for entry in site.search("carrot")]


def test_a_search_without_a_site_says_what_is_missing(base_url: str) -> None:
    with pytest.raises(DownloadError, match="saysodemo:base_url=http"):
        ask("saysosearch:soup")


def test_captions_are_offered_as_big_sites_do(base_url: str, site: Site) -> None:
    info = ask(f"{base_url}/watch?v={entry_with(site, captions=Captions.BOTH, fault=Fault.FLAKY).id}")
    assert [track["ext"] for track in info["subtitles"]["en"]] == ["vtt"]
    assert [track["ext"] for track in info["automatic_captions"]["en"]] == ["json3", "vtt"]


@pytest.mark.parametrize(("wanted", "begins"), [("json3", "{"), ("vtt", "WEBVTT\nKind: captions")])
def test_automatic_captions_are_downloaded(base_url: str, site: Site, tmp_path: Path, wanted: str, begins: str) -> None:
    entry = entry_with(site, captions=Captions.AUTOMATIC)
    ask(
        f"{base_url}/watch?v={entry.id}",
        download=True,
        skip_download=True,
        writeautomaticsub=True,
        subtitleslangs=["en"],
        subtitlesformat=wanted,
        outtmpl=str(tmp_path / "media.%(ext)s"),
    )
    assert (tmp_path / f"media.en.{wanted}").read_text().startswith(begins)


def test_a_video_without_captions_offers_none(base_url: str, site: Site) -> None:
    info = ask(f"{base_url}/watch?v={entry_with(site, captions=Captions.NONE).id}")
    assert not info["subtitles"]
    assert not info["automatic_captions"]


def test_the_missing_video_is_a_404_for_the_extractor(base_url: str, site: Site) -> None:
    with pytest.raises(DownloadError) as caught:
        ask(f"{base_url}/watch?v={entry_with(site, fault=Fault.MISSING).id}")
    cause = caught.value.exc_info[1]
    assert isinstance(cause, HTTPError)
    assert cause.status == 404


@pytest.mark.parametrize("retries", [1, 2])
def test_the_flaky_video_needs_two_retries(site: Site, tmp_path: Path, retries: int) -> None:
    entry = entry_with(site, fault=Fault.FLAKY)
    options: dict[str, Any] = {"download": True, "outtmpl": str(tmp_path / "media.%(ext)s"), "retries": retries}
    with serve(site.world_dir, flaky_failures=2) as url:
        if retries < 2:
            with pytest.raises(DownloadError, match="503"):
                ask(f"{url}/watch?v={entry.id}", **options)
        else:
            ask(f"{url}/watch?v={entry.id}", **options)
            assert (tmp_path / "media.mp4").stat().st_size > 0


def test_a_fresh_process_finds_the_plugin_as_its_docstring_says(base_url: str) -> None:
    program = (
        "import json, sys\n"
        "from yt_dlp import YoutubeDL\n"
        "from yt_dlp.globals import plugin_dirs\n"
        "from yt_dlp.plugins import load_all_plugins\n"
        "YoutubeDL({'quiet': True}).close()\n"
        "plugin_dirs.value = ['default', sys.argv[1]]\n"
        "load_all_plugins()\n"
        "with YoutubeDL({'quiet': True, 'extract_flat': True}) as ydl:\n"
        "    print(json.dumps(ydl.extract_info(sys.argv[2], download=False)['extractor']))\n"
    )
    command = [sys.executable, "-c", program, str(PLUGIN_DIR), f"{base_url}/playlist?list=everything"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd="/")
    assert json.loads(done.stdout) == "saysodemo:playlist"
