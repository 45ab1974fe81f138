import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.site.server import serve
from ingest.download import DownloadSettings, download, fetch_captions
from ingest.sites import SiteClient, SiteSettings, identify
from ingest.tracks import Offer
from sayso.errors import ConfigError, Permanent, Retry
from sayso.rows import Video

OPEN = SiteSettings(allow_private=True, timeout=1, retries=0)


@pytest.fixture(scope="module")
def base_url(tiny_world: Path) -> Iterator[str]:
    with serve(tiny_world) as url:
        yield url


@contextmanager
def answering(answer: bytes, *, wait: float = 0.0) -> Iterator[str]:
    """A server that says the same to everybody, after a while, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    time.sleep(wait)
                    connection.sendall(answer)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def head(length: int, *lines: str) -> bytes:
    return "\r\n".join(
        ["HTTP/1.1 200 OK", "Content-Type: video/mp4", f"Content-Length: {length}", *lines, "", ""]
    ).encode()


@pytest.mark.parametrize(
    ("url", "extractor", "id_", "single"),
    [
        ("https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=3", "youtube", "dQw4w9WgXcQ", True),
        ("https://vimeo.com/channels/staffpicks", "vimeochannel", "staffpicks", False),
        ("https://example.com/a.mp4", "generic", None, None),
    ],
)
def test_urls_are_identified_without_asking(url: str, extractor: str, id_: str | None, single: bool | None) -> None:
    who = identify(url, SiteSettings())
    assert (who.extractor, who.id, who.single) == (extractor, id_, single)


def test_nothing_is_said_on_the_terminal(base_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with SiteClient(OPEN) as client, pytest.raises(Permanent):
        client.info(f"{base_url}/watch?v=doesnotexis")
    assert capfd.readouterr() == ("", "")


def test_a_transfer_that_ends_early_is_tried_later(tmp_path: Path) -> None:
    with answering(head(100_000) + b"\x00" * 1000) as url:
        video = Video(video_id="generic:x", url=f"{url}/x.mp4")
        with pytest.raises(Retry) as caught:
            download(video, tmp_path, DownloadSettings(), OPEN)
    assert caught.value.reason in ("truncated", "network")


def test_a_server_that_hangs_is_left_after_the_time_out() -> None:
    begun = time.monotonic()
    with answering(b"", wait=3) as url, SiteClient(OPEN) as client:
        with pytest.raises(Retry) as caught:
            client.read(f"{url}/", 10)
        assert time.monotonic() - begun < 2.5
    assert caught.value.reason == "network"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_out_of_the_web_is_refused(target: str) -> None:
    moved = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    with answering(moved) as url, SiteClient(OPEN) as client, pytest.raises(Permanent) as caught:
        client.read(f"{url}/", 10)
    assert caught.value.reason == "unsupported_url"


def test_reading_stops_at_the_limit(base_url: str) -> None:
    with SiteClient(OPEN) as client:
        content_type, data = client.read(f"{base_url}/", 10)
    assert (content_type, data) == ("text/html; charset=utf-8", b"<!doctype ")


@pytest.mark.parametrize(
    "pauses", [{"pause": 0.15}, {"pauses": {"127.0.0.1": 0.15}}, {"pause": 9.0, "pauses": {"0.0.1": 0.15}}]
)
def test_a_host_is_given_its_pause(base_url: str, pauses: dict[str, object]) -> None:
    with SiteClient(OPEN.model_copy(update=pauses)) as client:
        begun = time.monotonic()
        for _ in range(3):
            client.read(f"{base_url}/", 1)
    assert 0.3 <= time.monotonic() - begun < 3


def test_cookies_are_read_and_never_written(base_url: str, tmp_path: Path) -> None:
    jar = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tvalue\n"
    jar.write_text(text)
    with SiteClient(OPEN.model_copy(update={"cookies": jar})) as client:
        client.read(f"{base_url}/", 1)
    assert jar.read_text() == text
    with pytest.raises(ConfigError, match=r"cookies: .*none\.txt cannot be read"):
        SiteClient(OPEN.model_copy(update={"cookies": tmp_path / "none.txt"}))


def test_captions_that_cannot_be_had_do_not_cost_the_video(base_url: str, tmp_path: Path) -> None:
    gone = Offer(kind="auto", language="en", format="json3", url=f"{base_url}/api/timedtext?v=gone")
    inside = Offer(kind="subtitle", language="en", format="vtt", url="", data="WEBVTT\n")
    with SiteClient(OPEN) as client:
        files, failed = fetch_captions(client, [gone, inside], tmp_path)
    assert failed == ["auto:en http_404"]
    assert [file.path.read_text() for file in files] == ["WEBVTT\n"]
    assert [file.path.name for file in files] == ["caption-1.vtt"]
