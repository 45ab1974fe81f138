import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.site import PLUGIN_DIR
from demo.site.server import serve
from demo.site.site import Site
from ingest.discover import DiscoverSettings, discover, record
from ingest.sites import SiteSettings
from sayso.errors import ConfigError, InputError, RootBusy, WorkFailed
from sayso.root import Root
from sayso.rows import Video

Asked = tuple[DiscoverSettings, SiteSettings]


@pytest.fixture(scope="module")
def base_url(tiny_world: Path) -> Iterator[str]:
    with serve(tiny_world) as url:
        yield url


@pytest.fixture
def settings(base_url: str) -> Asked:
    sites = SiteSettings(
        plugin_dirs=(str(PLUGIN_DIR),),
        extractor_args={"saysodemo": {"base_url": [base_url]}},
        allow_private=True,
        timeout=5,
    )
    return DiscoverSettings(), sites


@pytest.fixture
def folder(tmp_path: Path, tiny_world: Path) -> Path:
    """Two videos, one of them twice, a hidden file and a text."""
    sources = sorted((tiny_world / "videos").iterdir())
    made = tmp_path / "videos"
    (made / "inner folder").mkdir(parents=True)
    shutil.copy(sources[0], made / "a #1 100%.mp4")
    shutil.copy(sources[1], made / "inner folder" / "b.MP4")
    shutil.copy(sources[0], made / "inner folder" / "again.mp4")
    shutil.copy(sources[2], made / "._hidden.mp4")
    (made / "notes.md").write_text("nothing")
    return made


def listed(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def ids(videos: Iterator[Video]) -> list[str]:
    return [video.video_id for video in videos]


def demo_ids(world: Path) -> list[str]:
    return [f"saysodemo:{entry.id}" for entry in Site(world).entries]


# Folders


def test_a_folder_gives_each_content_once_by_path(folder: Path) -> None:
    videos = list(discover([str(folder)]))
    assert [video.title for video in videos] == ["a #1 100%", "b"]
    assert all(video.video_id.startswith("file:") for video in videos)
    assert all(video.url.startswith("file:///") for video in videos)


def test_ids_of_files_follow_the_content_not_the_path(folder: Path) -> None:
    before = ids(discover([str(folder)]))
    folder.rename(folder.with_name("elsewhere"))
    assert ids(discover([str(folder.with_name("elsewhere"))])) == before
    (file,) = folder.with_name("elsewhere").glob("a *")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert set(ids(discover([str(file)]))).isdisjoint(before)


@pytest.mark.parametrize(("names", "says"), [([], "it is empty"), (["notes.md", "b.txt"], "none of its 2 files")])
def test_a_folder_without_media_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=says):
        list(discover([str(tmp_path)]))


@pytest.mark.parametrize("given", ["/no/such/folder", "nonsense", "nosearch5:x y", "s3://bucket/videos", ""])
def test_what_is_not_there_is_refused_with_what_is_possible(given: str) -> None:
    with pytest.raises(InputError, match="give a folder of videos, a list of URLs") as caught:
        list(discover([given]))
    assert "\n" not in str(caught.value)


# Lists


def test_a_text_list_skips_comments_blanks_and_the_byte_order_mark(tmp_path: Path) -> None:
    text = (
        "\ufeffhttps://www.youtube.com/watch?v=dQw4w9WgXcQ\r\n\r\n# a comment\r\n  https://youtu.be/jNQXAC9IVRw  \r\n"
    )
    given = listed(tmp_path / "urls.txt", text + "https://www.youtube.com/watch?v=jNQXAC9IVRw&t=10\n")
    assert ids(discover([str(given)])) == ["youtube:dQw4w9WgXcQ", "youtube:jNQXAC9IVRw"]


def test_an_address_that_nobody_knows_has_a_stable_id(tmp_path: Path) -> None:
    given = listed(tmp_path / "urls.txt", "https://example.com/a.mp4\nhttps://example.com/b.mp4\n")
    first, second = ids(discover([str(given)]))
    assert first != second
    assert first.startswith("generic:")
    assert ids(discover([str(given)])) == [first, second]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not a url", "not a URL"),
        ("ftp://example.com/a.mp4", "not an http"),
        ("file:///etc/passwd", "not an http"),
        ("/etc/passwd", "not an http"),
        ("http://169.254.169.254/latest", "private address"),
        ("http://localhost/a.mp4", "private address"),
    ],
)
def test_a_junk_line_is_named_and_nothing_is_taken(tmp_path: Path, line: str, says: str) -> None:
    given = listed(tmp_path / "urls.txt", f"# head\nhttps://example.com/a.mp4\n\n{line}\n{line}\n")
    taken: list[Video] = []
    with pytest.raises(InputError, match=rf"urls\.txt, line 4: .*{says}.*and 1 more such lines"):
        taken.extend(discover([str(given)]))
    assert not taken


@pytest.mark.parametrize(
    ("text", "says"), [("", "holds no URLs"), ("# x\n\n", "holds no URLs"), (b"a\nb\xff\n", "line 2")]
)
def test_a_list_without_text_or_urls_is_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        list(discover([str(listed(tmp_path / "urls.txt", text))]))


def test_a_table_says_more_of_its_videos(tmp_path: Path) -> None:
    rows = 'Title,URL,task,duration,language\n"Cut, then fold",https://youtu.be/dQw4w9WgXcQ,make soup,12.5,en\n'
    (video,) = discover([str(listed(tmp_path / "urls.csv", rows))])
    assert (video.video_id, video.title) == ("youtube:dQw4w9WgXcQ", "Cut, then fold")
    assert (video.duration, video.language, video.rank) == (12.5, "en", 0)
    assert (video.task_id or "").startswith("make_soup")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("link,title\nhttps://a.example/,x\n", "no column named url .found: link, title."),
        ("url\nhttps://a.example/\njunk\n", "line 3"),
        ("url,duration\nhttps://a.example/,long\n", "line 2: duration 'long' is not a number"),
        ('url,title\nhttps://a.example/,"open\n', "not a table"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        list(discover([str(listed(tmp_path / "urls.csv", text))]))


def test_a_parquet_list_is_read_and_its_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "urls.parquet"
    pq.write_table(pa.table({"url": ["https://youtu.be/dQw4w9WgXcQ"], "title": [None], "duration": [3.0]}), path)
    (video,) = discover([str(path)])
    assert (video.video_id, video.title, video.duration) == ("youtube:dQw4w9WgXcQ", "", 3.0)
    pq.write_table(pa.table({"url": ["https://youtu.be/dQw4w9WgXcQ", None]}), path)
    with pytest.raises(InputError, match="row 2: no URL"):
        list(discover([str(path)]))
    with pytest.raises(InputError, match="not a Parquet file"):
        list(discover([str(listed(tmp_path / "broken.parquet", "nothing"))]))


# Sites


def test_a_playlist_gives_its_entries_in_order(settings: Asked, base_url: str, tiny_world: Path) -> None:
    videos = list(discover([f"{base_url}/playlist?list=everything"], *settings))
    assert [video.video_id for video in videos] == demo_ids(tiny_world)
    assert [video.rank for video in videos] == list(range(len(videos)))
    assert all(video.title and video.duration == 8.0 and video.found_by == "site" for video in videos)


def test_a_playlist_in_a_list_is_opened(settings: Asked, base_url: str, tiny_world: Path, tmp_path: Path) -> None:
    given = listed(tmp_path / "urls.txt", f"{base_url}/playlist?list=everything\n")
    assert ids(discover([str(given)], *settings)) == demo_ids(tiny_world)


def test_a_dead_playlist_in_a_list_does_not_spoil_the_list(settings: Asked, base_url: str, tmp_path: Path) -> None:
    given = listed(tmp_path / "urls.txt", f"{base_url}/playlist?list=gone\nhttps://youtu.be/dQw4w9WgXcQ\n")
    assert ids(discover([str(given)], *settings)) == ["saysodemoplaylist:gone", "youtube:dQw4w9WgXcQ"]


def test_a_search_gives_ranks_and_a_task(settings: Asked, tiny_world: Path) -> None:
    query = "how to make a carrot soup"
    videos = list(discover([f"saysosearch2:{query}"], *settings))
    assert [video.video_id for video in videos] == [f"saysodemo:{e.id}" for e in Site(tiny_world).search(query)[:2]]
    assert [video.rank for video in videos] == [0, 1]
    assert len({video.task_id for video in videos}) == 1
    assert videos[0].found_by == "search"


def test_a_page_gives_one_video_with_what_it_says(settings: Asked, base_url: str, tiny_world: Path) -> None:
    name = demo_ids(tiny_world)[0].removeprefix("saysodemo:")
    (video,) = discover([f"{base_url}/watch?v={name}"], *settings)
    assert (video.video_id, video.licence, video.channel) == (f"saysodemo:{name}", "Apache-2.0", "Anna's Workshop")


def test_a_feed_gives_its_items(settings: Asked, base_url: str, tiny_world: Path) -> None:
    videos = list(discover([f"{base_url}/feed.xml"], *settings))
    assert {video.video_id for video in videos} == set(demo_ids(tiny_world))
    assert all(video.duration == 8.0 and video.title and video.found_by == "feed" for video in videos)


def test_a_video_found_twice_is_given_once(settings: Asked, base_url: str, tiny_world: Path) -> None:
    given = [f"{base_url}/feed.xml", f"{base_url}/playlist?list=everything", "saysosearchall:carrot soup"]
    assert sorted(ids(discover(given, *settings))) == sorted(demo_ids(tiny_world))


def test_the_limit_is_kept_by_every_kind(settings: Asked, base_url: str, folder: Path) -> None:
    limited = DiscoverSettings(limit=1), settings[1]
    for given in (str(folder), f"{base_url}/feed.xml", f"{base_url}/playlist?list=everything", "saysosearch5:carrot"):
        assert len(ids(discover([given], *limited))) == 1


@pytest.mark.parametrize("path", ["/watch?v=doesnotexis", "/playlist?list=nothing", "/nothing"])
def test_a_page_that_is_not_there_is_one_clear_line(settings: Asked, base_url: str, path: str) -> None:
    with pytest.raises(InputError, match=r"404") as caught:
        list(discover([base_url + path], *settings))
    assert str(caught.value).startswith(base_url + path)
    assert "\n" not in str(caught.value)


def test_a_page_without_videos_is_refused(settings: Asked, base_url: str) -> None:
    with pytest.raises(InputError, match="Unsupported URL"):
        list(discover([f"{base_url}/"], *settings))


def test_a_site_that_does_not_answer_is_no_fault_of_the_user(settings: Asked, tiny_world: Path) -> None:
    with serve(tiny_world) as gone:
        pass
    with pytest.raises(WorkFailed, match="try again later"):
        list(discover([f"{gone}/playlist?list=everything"], *settings))


def test_private_addresses_are_refused_unless_allowed(settings: Asked, base_url: str) -> None:
    closed = settings[0], settings[1].model_copy(update={"allow_private": False})
    for given in (f"{base_url}/playlist?list=everything", "saysosearch1:soup"):
        with pytest.raises(InputError, match="private address"):
            list(discover([given], *closed))


def test_a_plugin_folder_that_is_not_there_is_named(settings: Asked) -> None:
    wrong = settings[0], SiteSettings(plugin_dirs=("/no/such/plugins",))
    with pytest.raises(ConfigError, match="plugin_dirs: /no/such/plugins"):
        list(discover(["https://example.com/"], *wrong))


# Feeds in files

ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom">
<entry><title>One</title><link rel="self" href="https://x.example/1"/><link href="https://youtu.be/dQw4w9WgXcQ"/></entry>
<entry><title>Two</title><link href="https://x.example/2"/>
  <link rel="enclosure" type="video/mp4" href="https://x.example/2.mp4"/></entry>
<entry><title>No link</title></entry></feed>"""


def test_an_atom_feed_takes_known_pages_and_else_the_media(tmp_path: Path) -> None:
    videos = list(discover([str(listed(tmp_path / "feed.xml", ATOM))]))
    assert [video.url for video in videos] == ["https://youtu.be/dQw4w9WgXcQ", "https://x.example/2.mp4"]
    assert [video.title for video in videos] == ["One", "Two"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<rss><channel><item><title>x</title></item></channel></rss>", "without an item"),
        ("<html></html>", "neither RSS nor Atom"),
        ("<rss><channel>", "not a feed that can be read"),
        ('<!DOCTYPE r [<!ENTITY a "b">]><rss>&a;</rss>', "must not declare a document type"),
    ],
)
def test_a_feed_that_cannot_be_used_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        list(discover([str(listed(tmp_path / "feed.rss", text))]))


# The table


def test_recording_adds_what_is_new_and_keeps_what_is_there(folder: Path, tmp_path: Path) -> None:
    root = Root(str(tmp_path / "root")).create()
    first = record(root, discover([str(folder / "inner folder")]))
    again = record(root, discover([str(folder)]))
    assert (first.new, first.known) == (2, 0)
    assert (again.new, again.known) == (0, 2)
    assert sorted(row.video_id for row in root.table(Video).rows()) == sorted(ids(discover([str(folder)])))


def test_an_error_in_a_source_records_nothing(folder: Path, tmp_path: Path) -> None:
    root = Root(str(tmp_path / "root")).create()
    with pytest.raises(InputError):
        record(root, discover([str(folder), "/no/such/folder"]))
    assert not list(root.table(Video).rows())


def test_of_two_at_once_the_second_is_refused_and_nothing_is_doubled(root: Root) -> None:
    video = Video(video_id="a", url="http://x/a")

    def found_by_both() -> Iterator[Video]:
        record(root, [video])
        yield video

    with pytest.raises(RootBusy, match="`discover`"):
        record(root, found_by_both())
    assert [row.video_id for row in root.table(Video).rows()] == ["a"]
    assert record(root, [video]).known == 1
