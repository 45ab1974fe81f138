"""The stage images: foreign pictures become our own JPEGs; what is gone is left out with its place."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ingest.images import Images, ImagesSettings
from ingest.jpeg import JpegSettings, to_jpeg
from ingest.refusals import is_unknown_host
from ingest.sites import SiteSettings
from sayso.errors import Permanent, Retry, Skip
from sayso.root import Root
from sayso.rows import Document, Page

OPEN = SiteSettings(allow_private=True, timeout=2, retries=0)


def picture(seed: int = 0, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A smooth picture that is unlike the others and unlike itself turned."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def likeness(path: Path, image: Image.Image) -> float:
    """PSNR in dB of a JPEG against a picture, scaled to its size."""
    with Image.open(path) as opened:
        found = np.asarray(opened.convert("RGB"), dtype=float)
    wanted = np.asarray(image.convert("RGB").resize(found.shape[1::-1], Image.Resampling.LANCZOS), dtype=float)
    return float(10 * np.log10(255**2 / max(np.mean((found - wanted) ** 2), 1e-9)))


@pytest.fixture
def jpeg(tmp_path: Path) -> Callable[..., Path]:
    """Makes the JPEG of a file."""

    def made(source: Path, **settings: float) -> Path:
        return to_jpeg(source, tmp_path / "out.jpg", JpegSettings.model_validate(settings)).path

    return made


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "avif"])
def test_pictures_of_every_kind_become_jpegs_that_look_the_same(
    suffix: str, jpeg: Callable[..., Path], tmp_path: Path
) -> None:
    source = tmp_path / f"x.{suffix}"
    picture().save(source)
    with Image.open(source) as opened:
        assert likeness(jpeg(source), opened) > 38
    with Image.open(tmp_path / "out.jpg") as made:
        assert (made.format, made.mode, made.size) == ("JPEG", "RGB", (341, 256))
        assert set(made.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_the_same_picture_gives_the_same_bytes_whatever_its_name(jpeg: Callable[..., Path], tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_bytes((tmp_path / "a.png").read_bytes())
    assert jpeg(tmp_path / "a.png").read_bytes() == jpeg(tmp_path / "b.txt").read_bytes()


def test_small_pictures_are_not_enlarged(jpeg: Callable[..., Path], tmp_path: Path) -> None:
    picture(size=(80, 60)).save(tmp_path / "a.png")
    with Image.open(jpeg(tmp_path / "a.png")) as made:
        assert made.size == (80, 60)


def test_a_picture_stands_upright_and_tells_nothing_of_its_camera(jpeg: Callable[..., Path], tmp_path: Path) -> None:
    turned, exif = picture().transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "secret camera"
    turned.save(tmp_path / "a.jpg", exif=exif, comment=b"secret comment", quality=98)
    made = jpeg(tmp_path / "a.jpg")
    assert likeness(made, picture()) > 34
    assert b"secret" not in made.read_bytes()


def test_what_is_transparent_is_white_and_an_animation_is_its_first_picture(
    jpeg: Callable[..., Path], tmp_path: Path
) -> None:
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    with Image.open(jpeg(tmp_path / "clear.png")) as made:
        assert made.getextrema() == ((255, 255),) * 3
    for suffix in ("gif", "webp"):
        source = tmp_path / f"moving.{suffix}"
        picture().save(source, save_all=True, append_images=[picture(1), picture(2)])
        assert likeness(jpeg(source), picture()) > 28


def swapped_profile() -> bytes:
    """sRGB with red and blue exchanged: the entries of the profile's tag table change places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_deep_and_odd_colours_are_brought_to_srgb(jpeg: Callable[..., Path], tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert likeness(jpeg(tmp_path / "deep.png"), Image.fromarray((deep // 256).astype(np.uint8))) > 38
    picture().save(tmp_path / "odd.png", icc_profile=swapped_profile())
    assert likeness(jpeg(tmp_path / "odd.png"), Image.merge("RGB", picture().split()[::-1])) > 35
    picture().convert("L").save(tmp_path / "grey.png", icc_profile=swapped_profile())
    assert likeness(jpeg(tmp_path / "grey.png"), picture().convert("L")) > 38, "a profile that does not fit"


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def jpeg_bytes() -> bytes:
    data = io.BytesIO()
    picture().save(data, "JPEG")
    return data.getvalue()


def broken() -> dict[str, tuple[bytes, str]]:
    return {
        "text": (b"<html>not found</html>" * 99, "not_a_picture"),
        "empty": (b"", "not_a_picture"),
        "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>', "not_a_picture"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "not_a_picture"),
        "cut off": (jpeg_bytes()[:2000], "undecodable"),
        "huge": (bomb(), "too_large"),
    }


@pytest.mark.parametrize("name", broken())
def test_what_is_no_whole_picture_is_refused(name: str, jpeg: Callable[..., Path], tmp_path: Path) -> None:
    data, reason = broken()[name]
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(Permanent) as told:
        jpeg(tmp_path / "x.jpg")
    assert told.value.reason == reason
    assert not (tmp_path / "out.jpg").exists()


def test_a_picture_that_takes_too_much_is_stopped(jpeg: Callable[..., Path], tmp_path: Path) -> None:
    picture(size=(6000, 6000)).save(tmp_path / "x.bmp")
    with pytest.raises(Permanent) as told:
        jpeg(tmp_path / "x.bmp", memory_bytes=1 << 28, most_pixels=1 << 30)
    assert told.value.reason in ("too_large", "undecodable")
    with pytest.raises(Retry) as late:
        jpeg(tmp_path / "x.bmp", seconds=0.01)
    assert late.value.reason == "picture_timeout"
    picture(size=(10, 300)).save(tmp_path / "thin.png")
    with pytest.raises(Permanent) as thin:
        jpeg(tmp_path / "thin.png")
    assert thin.value.reason == "too_small"


class _Site(SimpleHTTPRequestHandler):
    """Files of a folder; `/status/CODE` answers with that code, `/drip` never comes to an end."""

    def do_GET(self) -> None:
        if self.path.startswith("/status/"):
            self.send_error(int(self.path.rpartition("/")[2]))
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "99999")
            self.end_headers()
            self.wfile.write(jpeg_bytes())
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 15))
                    time.sleep(0.05)
            except OSError:
                return
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def made(root: Root, page: Page, sites: SiteSettings = OPEN, **settings: object) -> Document:
    stage = Images(root, ImagesSettings.model_validate(settings), sites)
    stage.open()
    (document,) = stage(page)
    return document


def page(*images: str, text: str | None = None) -> Page:
    return Page(document_id="document:d", text=text or "<image>" * len(images) + "words", images=list(images))


def test_a_document_has_its_pictures_in_order(root: Root, site: str, tmp_path: Path) -> None:
    picture(7).save(tmp_path / "here.png")
    asked = page(f"{site}/1.png", (tmp_path / "here.png").as_uri(), f"{site}/0.png", text="a<image><image>b<image>c")
    document = made(root, asked)
    assert (document.text, document.lost) == (asked.text, [])
    assert [image.key for image in document.images] == [f"media/document:d/{number}.jpg" for number in range(3)]
    for image, seed in zip(document.images, (1, 7, 0), strict=True):
        assert likeness(Path(root.storage.path(image.key)), picture(seed)) > 38
        assert (image.width, image.height) == (341, 256)
    for stored in document.objects():
        root.storage.check(stored)
    assert made(root, asked) == document


def test_a_picture_that_is_gone_is_left_out_with_its_place(root: Root, site: str, tmp_path: Path) -> None:
    (tmp_path / "junk.png").write_text("junk")
    gone = [f"{site}/nothing.png", (tmp_path / "nowhere.png").as_uri(), (tmp_path / "junk.png").as_uri()]
    asked = page(gone[0], f"{site}/1.png", *gone[1:], text="<image>a<image>b<image>c<image>d")
    document = made(root, asked)
    assert document.text == "a<image>bcd"
    assert [image.key for image in document.images] == ["media/document:d/1.jpg"]
    assert document.lost == [f"http_404 {gone[0]}", f"file_missing {gone[1]}", f"not_a_picture {gone[2]}"]
    with pytest.raises(Skip) as told:
        made(root, asked, missing="drop_document")
    assert told.value.reason == "http_404"


@pytest.mark.parametrize(
    ("path", "reason"), [("/nothing.png", "http_404"), ("/status/410", "http_410"), ("/drip", "too_slow")]
)
def test_a_captioned_picture_that_is_gone_is_dropped_with_its_reason(
    root: Root, site: str, path: str, reason: str
) -> None:
    with pytest.raises(Skip) as told:
        made(root, page(f"{site}{path}"), download_seconds=0.5)
    assert told.value.reason == reason
    assert f"{site}{path}" in told.value.message


@pytest.mark.parametrize(("path", "reason"), [("/status/503", "http_503"), ("/cut", "truncated")])
def test_a_picture_that_may_come_later_makes_its_document_wait(root: Root, site: str, path: str, reason: str) -> None:
    with pytest.raises(Retry) as told:
        made(root, page(f"{site}/1.png", f"{site}{path}"))
    assert told.value.reason == reason


def test_what_is_too_big_or_too_many_is_dropped(root: Root, site: str) -> None:
    with pytest.raises(Skip) as big:
        made(root, page(f"{site}/drip"), max_bytes=100_000)
    assert big.value.reason == "too_big"
    with pytest.raises(Skip) as many:
        made(root, page(*[f"{site}/1.png"] * 3), max_images=2)
    assert many.value.reason == "too_many_pictures"


def test_no_picture_is_fetched_from_inside_the_network(root: Root, site: str) -> None:
    with pytest.raises(Skip) as told:
        made(root, page(f"{site}/1.png"), SiteSettings())
    assert told.value.reason == "private_address"


def test_a_host_that_is_gone_is_left_out_once_the_web_is_known_to_be_there(
    root: Root, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def lookup(host: str, *arguments: object, **more: object) -> object:
        """As a name server that works answers; the one of this machine may not."""
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    gone = "http://nowhere.invalid/1.png"
    stage = Images(root, ImagesSettings(), OPEN)
    stage.open()
    with pytest.raises(Retry) as told:
        stage(page(gone))
    assert told.value.reason == "network"
    (document,) = stage(page(f"{site}/1.png", gone))
    assert document.lost == [f"no_such_host {gone}"]


def test_a_host_without_a_name_is_told_from_a_network_that_is_down() -> None:
    def failed(number: int) -> Retry:
        retry = Retry("network", "no")
        retry.__cause__ = OSError("wrapped")
        retry.__cause__.__context__ = socket.gaierror(number, "no")
        return retry

    assert is_unknown_host(failed(socket.EAI_NONAME))
    assert not is_unknown_host(failed(socket.EAI_AGAIN))
