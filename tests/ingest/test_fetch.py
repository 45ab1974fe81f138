"""The stage fetch, on files of this machine and on the demo site."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.site import PLUGIN_DIR
from demo.site.catalogue import Captions, Entry, Fault
from demo.site.server import serve
from demo.site.site import Site
from ingest.fetch import Fetch, FetchSettings
from ingest.normalise import NormaliseSettings
from ingest.sites import SiteSettings
from ingest.sources.folder import find
from sayso.errors import Permanent, Skip
from sayso.root import Root
from sayso.rows import Forgotten, Media, Video
from tests.made import put

Make = Callable[..., Path]

SCENE = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=2")


def fetched(
    root: Root, video: Video, settings: FetchSettings | None = None, sites: SiteSettings | None = None
) -> Media:
    stage = Fetch(root, settings or FetchSettings(), sites)
    stage.open()
    (media,) = stage(video)
    return media


def video_of(path: Path) -> Video:
    (video,) = find(path)
    return video


def test_a_file_becomes_a_proxy_with_its_captions(root: Root, make: Make) -> None:
    source = make("Carrot soup.mp4", *SCENE, *TONE, "-pix_fmt", "yuv420p")
    captions = "1\n00:00:00,500 --> 00:00:01,500\ncut the carrot\n"
    source.with_name("Carrot soup.en.srt").write_text(captions)
    video = video_of(source)
    media = fetched(root, video)
    assert media.key == f"media/{video.video_id}/proxy.mp4"
    assert [track.key for track in media.captions] == [f"media/{video.video_id}/subtitle.en.srt"]
    assert root.storage.read(media.captions[0].key).decode() == captions
    for stored in media.objects():
        root.storage.check(stored)
    assert sorted(root.storage.list("media")) == sorted(stored.key for stored in media.objects())
    assert (media.width, media.height, media.fps, media.audio) == (320, 240, 10.0, True)
    assert media.source.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (media.source.container, media.source.video_codec, media.source.audio_codec) == ("mp4", "h264", "aac")
    assert media.normalised_with.startswith("ffmpeg ")


def test_a_row_survives_its_table(root: Root, make: Make) -> None:
    media = fetched(root, video_of(make("x.mp4", *SCENE, *TONE)), FetchSettings(keep_original=True))
    marks = {"made_by": "fetch", "made_from": media.video_id}
    root.table(Media).append([{**media.model_dump(), **marks}])
    assert list(root.table(Media).rows()) == [media]


def test_fetching_twice_gives_the_same_row(root: Root, make: Make) -> None:
    video = video_of(make("x.mp4", *SCENE, *TONE))
    assert fetched(root, video) == fetched(root, video)


def test_the_original_is_kept_if_asked_for_under_the_ending_of_what_it_is(root: Root, make: Make) -> None:
    source = make("x.mkv", *SCENE, *TONE)
    misnamed = source.rename(source.with_suffix(".mp4"))
    media = fetched(root, video_of(misnamed), FetchSettings(keep_original=True))
    (original,) = media.originals
    assert original.key == f"media/{media.video_id}/original.mkv"
    assert root.storage.read(original.key) == misnamed.read_bytes()


def test_a_video_without_sound_says_so(root: Root, make: Make) -> None:
    assert not fetched(root, video_of(make("x.mp4", *SCENE))).audio


def test_what_was_forgotten_is_not_fetched_under_its_id_or_another(root: Root, make: Make) -> None:
    video = video_of(make("x.mp4", *SCENE, *TONE))
    other = video_of(make("y.mp4", *SCENE))
    digest = fetched(root, video).source.sha256
    put(root, [Forgotten(id="site:x", source_sha256=digest), Forgotten(id=other.video_id)], "forget")
    for each in (video, other):
        with pytest.raises(Skip) as told:
            fetched(root, each)
        assert told.value.reason == "forgotten"


def test_a_long_video_is_not_even_downloaded(root: Root) -> None:
    settings = FetchSettings(profile=NormaliseSettings(max_duration=60))
    with pytest.raises(Skip) as told:
        fetched(root, Video(video_id="x:y", url="https://nowhere.invalid/", duration=61), settings)
    assert told.value.reason == "too_long"


def test_nothing_is_left_of_a_file_that_is_no_video(root: Root, tmp_path: Path) -> None:
    notes = tmp_path / "notes.mp4"
    notes.write_text("buy carrots\n" * 50)
    with pytest.raises(Permanent) as told:
        fetched(root, video_of(notes))
    assert told.value.reason == "not_media"
    assert "notes.mp4" in told.value.message
    assert root.storage.list("media") == []


def test_a_worker_is_given_longer_than_ffmpeg_takes(root: Root) -> None:
    settings = FetchSettings()
    stage = Fetch(root, settings)
    for duration in (None, 10.0, 3600.0):
        limit = stage.time_limit(Video(video_id="x:y", url="", duration=duration))
        assert limit >= settings.profile.time_limit(duration) + settings.download_seconds


def on_site(url: str, entry: Entry) -> tuple[Video, FetchSettings, SiteSettings]:
    sites = SiteSettings(plugin_dirs=(str(PLUGIN_DIR),), allow_private=True, timeout=5)
    video = Video(video_id=f"saysodemo:{entry.id}", url=f"{url}/watch?v={entry.id}")
    return video, FetchSettings(), sites


def test_a_video_of_a_site_comes_with_its_captions(root: Root, tiny_world: Path) -> None:
    entries = Site(tiny_world).entries
    entry = next(e for e in entries if e.fault is Fault.NONE and e.captions is Captions.AUTOMATIC)
    with serve(tiny_world) as url:
        media = fetched(root, *on_site(url, entry))
    assert [track.kind for track in media.captions] == ["auto"]
    assert media.source.fetched_with.startswith("yt-dlp ")
    assert media.duration == pytest.approx(8, abs=0.2)


def test_a_file_that_is_cut_off_on_its_site_is_told(root: Root, tiny_world: Path) -> None:
    entry = next(e for e in Site(tiny_world).entries if e.fault is Fault.TRUNCATED)
    with serve(tiny_world) as url, pytest.raises(Permanent) as told:
        fetched(root, *on_site(url, entry))
    assert told.value.reason == "truncated"


def test_the_foreign_bytes_are_gone_afterwards(root: Root, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make("x.mp4", *SCENE)
    scratch = source.with_name("scratch")
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    fetched(root, video_of(source))
    assert list(scratch.iterdir()) == []
