import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from yt_dlp import YoutubeDL

from demo.site import PLUGIN_DIR
from demo.site.catalogue import Captions, Entry, Fault
from demo.site.server import serve
from demo.site.site import Site
from ingest.discover import discover
from ingest.download import DownloadSettings, choose_formats, download
from ingest.sites import SiteSettings
from sayso.errors import Permanent, Retry, RowError, Skip
from sayso.rows import Video

SITES = SiteSettings(plugin_dirs=(str(PLUGIN_DIR),), allow_private=True, timeout=5)
SETTINGS = DownloadSettings()


@pytest.fixture(scope="module")
def base_url(tiny_world: Path) -> Iterator[str]:
    with serve(tiny_world) as url:
        yield url


@pytest.fixture
def site(tiny_world: Path) -> Site:
    return Site(tiny_world)


def entry_with(site: Site, *, fault: Fault = Fault.NONE, captions: Captions | None = None) -> Entry:
    return next(entry for entry in site.entries if entry.fault is fault and captions in (None, entry.captions))


def at(base_url: str, entry: Entry) -> Video:
    return Video(video_id=f"saysodemo:{entry.id}", url=f"{base_url}/watch?v={entry.id}")


def changed(**keys: Any) -> DownloadSettings:
    return SETTINGS.model_copy(update=keys)


def refused(video: Video, into: Path, settings: DownloadSettings = SETTINGS, sites: SiteSettings = SITES) -> RowError:
    with pytest.raises(RowError) as caught:
        download(video, into, settings, sites)
    return caught.value


def test_a_video_comes_byte_for_byte_with_what_its_page_says(base_url: str, site: Site, tmp_path: Path) -> None:
    entry = entry_with(site)
    got = download(at(base_url, entry), tmp_path, SETTINGS, SITES)
    source = site.world_dir / "videos" / f"{entry.source}.mp4"
    assert got.path == tmp_path / "media.mp4"
    assert got.path.read_bytes() == source.read_bytes()
    assert (got.title, got.duration, got.licence, got.language) == (entry.title, 8.0, "Apache-2.0", "en")
    assert got.sound is None
    assert got.fetched_with.startswith("yt-dlp 20")
    assert got.fetched_with.endswith(" saysodemo 240p")


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Captions.NONE, []),
        (Captions.AUTOMATIC, [("auto", "en", "json3")]),
        (Captions.BOTH, [("subtitle", "en", "vtt"), ("auto", "en", "json3")]),
    ],
)
def test_captions_come_in_the_best_format(
    site: Site, tmp_path: Path, kind: Captions, found: list[tuple[str, str, str]]
) -> None:
    entry = next(entry for entry in site.entries if entry.captions is kind and entry.fault is not Fault.MISSING)
    with serve(site.world_dir, flaky_failures=0) as url:
        got = download(at(url, entry), tmp_path, SETTINGS, SITES)
    assert [(track.kind, track.language, track.format) for track in got.captions] == found
    assert got.captions_failed == ()
    for track in got.captions:
        text = track.path.read_text()
        assert json.loads(text)["events"] if track.format == "json3" else text.startswith("WEBVTT")


def test_captions_in_other_languages_are_left(base_url: str, site: Site, tmp_path: Path) -> None:
    entry = entry_with(site, captions=Captions.AUTOMATIC)
    assert download(at(base_url, entry), tmp_path, changed(caption_languages=("de",)), SITES).captions == ()


def test_the_flaky_video_needs_a_retry_of_the_row_after_the_time_it_asks_for(site: Site, tmp_path: Path) -> None:
    entry = entry_with(site, fault=Fault.FLAKY)
    with serve(site.world_dir, flaky_failures=2) as url:
        error = refused(at(url, entry), tmp_path)
        assert isinstance(error, Retry)
        assert (error.reason, error.after) == ("http_503", 1.0)
        assert download(at(url, entry), tmp_path, SETTINGS, SITES).path.stat().st_size > 0


def test_the_missing_video_is_missing_for_good(base_url: str, site: Site, tmp_path: Path) -> None:
    error = refused(at(base_url, entry_with(site, fault=Fault.MISSING)), tmp_path)
    assert isinstance(error, Permanent)
    assert error.reason == "http_404"


def test_the_truncated_video_is_as_long_as_announced_so_it_comes(base_url: str, site: Site, tmp_path: Path) -> None:
    entry = entry_with(site, fault=Fault.TRUNCATED)
    whole = (site.world_dir / "videos" / f"{entry.source}.mp4").stat().st_size
    assert download(at(base_url, entry), tmp_path, SETTINGS, SITES).path.stat().st_size < whole


def test_a_site_that_went_away_may_come_back(site: Site, tmp_path: Path) -> None:
    with serve(site.world_dir) as gone:
        pass
    error = refused(at(gone, entry_with(site)), tmp_path)
    assert isinstance(error, Retry)
    assert error.reason == "network"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (changed(max_seconds=5), "too_long"),
        (changed(min_seconds=10), "too_short"),
        (changed(max_bytes=100), "too_big"),
    ],
)
def test_limits_skip_before_any_byte_of_media(
    base_url: str, site: Site, tmp_path: Path, settings: DownloadSettings, reason: str
) -> None:
    error = refused(at(base_url, entry_with(site)), tmp_path, settings)
    assert isinstance(error, Skip)
    assert error.reason == reason
    assert not list(tmp_path.iterdir())


def test_a_size_that_was_not_announced_is_still_limited(base_url: str, site: Site, tmp_path: Path) -> None:
    video = Video(video_id="generic:x", url=f"{base_url}/media/{entry_with(site).id}.mp4")
    error = refused(video, tmp_path, changed(max_bytes=100))
    assert isinstance(error, Skip)
    assert error.reason == "too_big"


def test_a_plain_media_file_on_the_web_is_a_video(base_url: str, site: Site, tmp_path: Path) -> None:
    entry = entry_with(site)
    video = Video(video_id="generic:x", url=f"{base_url}/media/{entry.id}.mp4")
    got = download(video, tmp_path, SETTINGS, SITES)
    assert got.path.read_bytes() == (site.world_dir / "videos" / f"{entry.source}.mp4").read_bytes()


def test_private_addresses_are_refused_unless_allowed(base_url: str, site: Site, tmp_path: Path) -> None:
    closed = SITES.model_copy(update={"allow_private": False})
    error = refused(at(base_url, entry_with(site)), tmp_path, sites=closed)
    assert isinstance(error, Permanent)
    assert error.reason == "private_address"


@pytest.mark.parametrize(("path", "reason"), [("/", "unsupported_url"), ("/playlist?list=everything", "not_one_video")])
def test_what_is_no_video_says_so(base_url: str, tmp_path: Path, path: str, reason: str) -> None:
    error = refused(Video(video_id="x:y", url=base_url + path), tmp_path)
    assert isinstance(error, Permanent)
    assert error.reason == reason


# Files on this machine


@pytest.fixture
def local(tmp_path: Path, tiny_world: Path) -> Video:
    path = tmp_path / "here" / "a film #1.mp4"
    path.parent.mkdir()
    shutil.copy(next((tiny_world / "videos").iterdir()), path)
    (video,) = discover([str(path)])
    return video


def test_a_file_stays_where_it_is(local: Video, tmp_path: Path) -> None:
    got = download(local, tmp_path / "nowhere", SETTINGS, SITES)
    assert got.path == tmp_path / "here" / "a film #1.mp4"
    assert got.title == "a film #1"


def test_captions_beside_a_file_are_taken(local: Video, tmp_path: Path) -> None:
    files = {
        "a film #1.srt": "1\n00:00:01,000 --> 00:00:02,000\nhello\n",
        "a film #1.de.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nhallo\n",
        "a film #1.vtt": "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nhello<00:00:01.500><c> you</c>\n",
        "a film #12.srt": "not ours",
        "a film #1.notes about it.srt": "not ours",
    }
    for name, text in files.items():
        (tmp_path / "here" / name).write_text(text)
    found = {
        (track.kind, track.language, track.format) for track in download(local, tmp_path, SETTINGS, SITES).captions
    }
    assert found == {("subtitle", "en", "srt"), ("subtitle", "de", "vtt"), ("auto", "en", "vtt")}


def test_a_file_that_is_gone_or_changed_is_told_apart(local: Video, tmp_path: Path) -> None:
    path = tmp_path / "here" / "a film #1.mp4"
    path.write_bytes(b"something else")
    assert refused(local, tmp_path).reason == "file_changed"
    path.unlink()
    assert refused(local, tmp_path).reason == "file_missing"


# The choice of a format


def offered(*formats: dict[str, Any]) -> list[dict[str, Any]]:
    """Formats as yt-dlp sorts them for us."""
    options = {"quiet": True, "format": lambda context: context["formats"][-1:], "format_sort": ["+res:256"]}
    plain = {"url": "http://x.example/x.mp4", "ext": "mp4", "protocol": "https"}
    info = {"id": "x", "title": "x", "extractor": "x", "formats": [{**plain, **one} for one in formats]}
    with YoutubeDL(options) as ydl:
        sorted_formats: list[dict[str, Any]] = ydl.process_video_result(info, download=False)["formats"]
        return sorted_formats


def whole(height: int, **more: Any) -> dict[str, Any]:
    size = {"format_id": f"w{height}", "height": height, "width": height * 16 // 9}
    return {**size, "vcodec": "h264", "acodec": "aac", **more}


def silent(height: int) -> dict[str, Any]:
    return whole(height, format_id=f"v{height}", acodec="none")


SOUND = {"format_id": "sound", "vcodec": "none", "acodec": "aac", "abr": 128}


@pytest.mark.parametrize(
    ("formats", "taken"),
    [
        ([whole(144), whole(360), whole(1080)], ["w360"]),
        ([whole(144), whole(240)], ["w240"]),
        ([whole(1080, width=608, format_id="portrait"), whole(720)], ["portrait"]),
        ([whole(360), silent(360), silent(1080), SOUND], ["w360"]),
        ([whole(144), silent(360), silent(1080), SOUND], ["v360", "sound"]),
        ([silent(240), silent(480), SOUND], ["v480", "sound"]),
        ([silent(480)], ["v480"]),
        ([SOUND], ["sound"]),
        ([whole(720), whole(360, protocol="m3u8")], ["w720"]),
        ([whole(1080), whole(360, has_drm="maybe")], ["w1080"]),
    ],
)
def test_the_smallest_version_that_is_large_enough_is_taken(formats: list[dict[str, Any]], taken: list[str]) -> None:
    assert [one["format_id"] for one in choose_formats(offered(*formats), 256)] == taken


def test_formats_that_need_help_are_no_media() -> None:
    with pytest.raises(Permanent) as caught:
        choose_formats(offered(whole(360, protocol="rtmp")), 256)
    assert caught.value.reason == "no_media"
