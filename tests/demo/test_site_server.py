import http.client
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo.site.catalogue import Entry, Fault
from demo.site.server import serve
from demo.site.site import Site


@pytest.fixture(scope="module")
def base_url(tiny_world: Path) -> Iterator[str]:
    with serve(tiny_world) as url:
        yield url


def get(base_url: str, target: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
    try:
        connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def entry_with(world: Path, fault: Fault) -> Entry:
    return next(entry for entry in Site(world).entries if entry.fault is fault)


def bytes_of(world: Path, entry: Entry) -> bytes:
    return (world / "videos" / f"{entry.source}.mp4").read_bytes()


def test_pages_are_html_that_links_to_every_entry(base_url: str, tiny_world: Path) -> None:
    status, headers, body = get(base_url, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert all(f"/watch?v={entry.id}".encode() in body for entry in Site(tiny_world).entries)


def test_a_watch_page_shows_the_video(base_url: str, tiny_world: Path) -> None:
    entry = entry_with(tiny_world, Fault.NONE)
    status, _, body = get(base_url, f"/watch?v={entry.id}")
    assert status == 200
    assert f'<video controls src="/media/{entry.id}.mp4">'.encode() in body


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-50", -50, None), ("bytes=10-99999999", 10, None)],
)
def test_a_range_is_answered_with_those_bytes(
    base_url: str, tiny_world: Path, asked: str, start: int, end: int | None
) -> None:
    entry = entry_with(tiny_world, Fault.NONE)
    whole = bytes_of(tiny_world, entry)
    status, headers, body = get(base_url, f"/media/{entry.id}.mp4", Range=asked)
    assert (status, body) == (206, whole[start:end])
    first = start % len(whole)
    assert headers["content-range"] == f"bytes {first}-{first + len(body) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,5-6", "pages=1-2", "bytes=-"])
def test_a_range_that_makes_no_sense_is_ignored(base_url: str, tiny_world: Path, asked: str) -> None:
    entry = entry_with(tiny_world, Fault.NONE)
    status, _, body = get(base_url, f"/media/{entry.id}.mp4", Range=asked)
    assert (status, body) == (200, bytes_of(tiny_world, entry))


def test_a_range_behind_the_end_cannot_be_had(base_url: str, tiny_world: Path) -> None:
    entry = entry_with(tiny_world, Fault.NONE)
    status, headers, body = get(base_url, f"/media/{entry.id}.mp4", Range="bytes=999999999-")
    assert (status, body) == (416, b"")
    assert headers["content-range"] == f"bytes */{len(bytes_of(tiny_world, entry))}"


def test_head_sends_no_body(base_url: str, tiny_world: Path) -> None:
    entry = entry_with(tiny_world, Fault.NONE)
    status, headers, body = get(base_url, f"/media/{entry.id}.mp4", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(bytes_of(tiny_world, entry))


def test_one_connection_answers_many_requests(base_url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
    try:
        for target in ("/", "/feed.xml", "/nothing", "/"):
            connection.request("GET", target)
            connection.getresponse().read()
            assert connection.sock is not None
    finally:
        connection.close()


def test_the_missing_video_is_linked_but_gone(base_url: str, tiny_world: Path) -> None:
    entry = entry_with(tiny_world, Fault.MISSING)
    assert entry.id.encode() in get(base_url, "/playlist?list=everything")[2]
    assert entry.id.encode() in get(base_url, "/feed.xml")[2]
    assert get(base_url, f"/watch?v={entry.id}")[0] == 404
    assert get(base_url, f"/media/{entry.id}.mp4")[0] == 404


def test_the_truncated_video_announces_the_length_it_has(base_url: str, tiny_world: Path) -> None:
    entry = entry_with(tiny_world, Fault.TRUNCATED)
    status, headers, body = get(base_url, f"/media/{entry.id}.mp4")
    whole = bytes_of(tiny_world, entry)
    assert (status, int(headers["content-length"])) == (200, len(body))
    assert body == whole[: len(body)]
    assert len(body) < 0.6 * len(whole)


def test_the_duplicate_has_another_id_and_the_same_bytes(base_url: str, tiny_world: Path) -> None:
    entry = entry_with(tiny_world, Fault.DUPLICATE)
    assert entry.id != entry.source
    assert get(base_url, f"/media/{entry.id}.mp4")[2] == get(base_url, f"/media/{entry.source}.mp4")[2]


def test_the_flaky_video_is_refused_at_first_after_every_start(tiny_world: Path) -> None:
    target = f"/media/{entry_with(tiny_world, Fault.FLAKY).id}.mp4"
    for _ in range(2):
        with serve(tiny_world, flaky_failures=2) as url:
            assert get(url, target, method="HEAD")[0] == 503
            answers = [get(url, target) for _ in range(3)]
            assert [status for status, _, _ in answers] == [503, 503, 200]
            assert answers[0][1]["retry-after"] == "1"


def test_the_feed_is_rss_with_absolute_addresses_newest_first(base_url: str, tiny_world: Path) -> None:
    _, headers, body = get(base_url, "/feed.xml")
    items = ET.fromstring(body).findall("channel/item")
    assert headers["content-type"].startswith("application/rss+xml")
    assert len(items) == len(Site(tiny_world).entries)
    assert all(item.findtext("link", "").startswith(f"{base_url}/watch?v=") for item in items)
    dates = [item.findtext("pubDate", "") for item in items]
    assert dates[0] == "Sat, 06 Jan 2024 00:00:00 GMT"
    assert dates[-1] == "Mon, 01 Jan 2024 00:00:00 GMT"


def test_search_puts_more_shared_words_first(tiny_world: Path) -> None:
    found = Site(tiny_world).search("how to fold a carrot soup")
    assert [entry.task for entry in found[:2]] == ["make carrot soup"] * 2
    assert {entry.task for entry in found} == {"make carrot soup", "fold a paper boat"}


@pytest.mark.parametrize(
    "target",
    ["/nothing", "/watch", "/watch?v=../../etc/passwd", "/media/../world.json", "/playlist?list=x", "/api/timedtext"],
)
def test_what_is_not_there_is_404(base_url: str, target: str) -> None:
    assert get(base_url, target)[0] == 404


def test_what_a_visitor_types_is_escaped(base_url: str) -> None:
    body = get(base_url, "/results?search_query=%3C/script%3E%3Cb%3E%26")[2]
    assert b"<b>" not in body
    assert body.count(b"</script>") == 1


def test_closing_ends_kept_connections_and_threads(tiny_world: Path) -> None:
    before = set(threading.enumerate())
    with serve(tiny_world) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        connection.request("GET", "/")
        connection.getresponse().read()
    assert set(threading.enumerate()) <= before
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        get(url, "/")


def test_the_command_serves_until_it_is_told_to_stop(tiny_world: Path) -> None:
    command = [sys.executable, "-m", "demo.site", "--world", str(tiny_world), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().rstrip("/")
        assert get(url, "/")[0] == 200
        process.terminate()
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(("place", "says"), [("empty", "has no world.json"), ("taken", "cannot be used")])
def test_the_command_says_why_it_cannot_serve(
    base_url: str, tiny_world: Path, tmp_path: Path, place: str, says: str
) -> None:
    world, port = (tmp_path, "0") if place == "empty" else (tiny_world, str(urlsplit(base_url).port))
    command = [sys.executable, "-m", "demo.site", "--world", str(world), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert says in done.stderr
