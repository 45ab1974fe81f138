"""Pictures of films against the numbers burnt into them, by every decoder that is installed."""

from __future__ import annotations

import io
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sayso.errors import ConfigError, CorruptObject
from shards.clips import ClipSettings, check_decoder
from shards.crop import Crop
from shards.cut import Proxy
from shards.decode import Pixels, decode
from shards.decode_torchcodec import decode_torchcodec

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

Decoder = Callable[[bytes, Sequence[float], Crop], Pixels]


def installed() -> list[Decoder]:
    """PyAV always, and torchcodec where it is installed and finds FFmpeg."""
    try:
        check_decoder(ClipSettings(decoder="torchcodec"))
    except ConfigError:
        return [decode]
    return [decode, decode_torchcodec]


INSTALLED = installed()
WHOLE = Crop(size=240, short_side=240)


@pytest.fixture(scope="module", params=[0, 3], ids=["no B-frames", "B-frames"])
def film(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twenty seconds."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    lab.make_proxy(path, 20, b_frames=request.param)
    return path.read_bytes()


def numbers(lab: Lab, frames: Pixels) -> list[int]:
    return [lab.number(frame[120, :, 0].tolist(), left=40) for frame in frames]


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize("fps", [0.4, 1.0, 3.3, 10.0, 25.0, 60.0])
def test_pictures_are_those_shown_at_their_times_at_any_rate(
    lab: Lab, film: bytes, decoder: Decoder, fps: float
) -> None:
    draw = random.Random(f"{fps}")
    for _ in range(4):
        start = draw.uniform(0, 15)
        times = [start + i / fps for i in range(8)]
        expected = [min(int(time * 10 + 0.01), 199) for time in times]
        assert numbers(lab, decoder(film, times, WHOLE)) == expected


@pytest.mark.parametrize("decoder", INSTALLED)
def test_the_first_and_the_last_picture_stand_for_what_lies_beyond(lab: Lab, tmp_path: Path, decoder: Decoder) -> None:
    lab.make_proxy(tmp_path / "late.mp4", 3, late=1.5)
    frames = decoder((tmp_path / "late.mp4").read_bytes(), [-1.0, 0.0, 1.4, 1.6, 2.95, 3.1, 9.0], WHOLE)
    assert numbers(lab, frames) == [15, 15, 15, 16, 29, 29, 29]


@pytest.mark.parametrize("decoder", INSTALLED)
def test_clips_cut_anywhere_give_the_pictures_of_their_source(lab: Lab, proxy: Path, decoder: Decoder) -> None:
    with Proxy(proxy) as source:
        for start in (0.0, 0.5, 3.95, 6.2):
            clip = source.cut(start, start + 5)
            times = [start - clip.start + 0.013 + i / 10 for i in range(32)]
            expected = [int((clip.start + time) * 10 + 0.01) for time in times]
            assert numbers(lab, decoder(clip.data, times, WHOLE)) == expected


def test_only_what_is_needed_is_decoded(lab: Lab, film: bytes) -> None:
    """At a picture a second, beginning at a key frame, nothing but key frames is: the rest may as well be ruined."""
    ruined = bytearray(film)
    with av.open(io.BytesIO(film), "r") as container:
        for packet in container.demux(video=0):
            if packet.size and not packet.is_keyframe and packet.pos is not None:
                ruined[packet.pos + 5 : packet.pos + packet.size] = b"\xff" * (packet.size - 5)
    times = [float(second) for second in range(1, 20)]
    assert numbers(lab, decode(bytes(ruined), times, WHOLE)) == [10 * second for second in range(1, 20)]
    with pytest.raises(CorruptObject):
        decode(bytes(ruined), [5.5], WHOLE)


def as_rgb(film: bytes, times: Sequence[float], width: int, height: int) -> Pixels:
    """Whole pictures scaled by PyAV's own conversion, the plain way."""
    with av.open(io.BytesIO(film), "r") as container:
        shown = {round(frame.time or 0, 3): frame for frame in container.decode(video=0)}
        return np.stack([shown[time].to_ndarray(format="rgb24", width=width, height=height) for time in times])


def patterned(tmp_path: Path, colours: dict[str, str]) -> bytes:
    """Two seconds of smooth moving colours, with what the file says of them."""
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        options = {"g": "10", "bf": "0", "crf": "10", "threads": "1", **colours}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 456, 256, "yuv420p"
        y, x = np.mgrid[:256, :456]
        for number in range(20):
            waves = [128 + 100 * np.sin(x / a + y / b + number / 3) for a, b in ((40, 90), (70, 30), (55, 60))]
            frame = av.VideoFrame.from_ndarray(np.stack(waves, axis=-1).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return (tmp_path / "film.mp4").read_bytes()


COLOURS = {"unsaid": {}, "bt709": {"colorspace": "bt709", "color_range": "tv"}, "full range": {"color_range": "pc"}}


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize("colours", COLOURS.values(), ids=COLOURS)
def test_a_crop_is_a_part_of_the_whole_picture(tmp_path: Path, decoder: Decoder, colours: dict[str, str]) -> None:
    film, times = patterned(tmp_path, colours), [0.3, 0.4, 1.7]
    whole = as_rgb(film, times, 456, 256)
    for x, y, flip in itertools.product((0.0, 0.5, 1.0), (0.0, 1.0), (False, True)):
        left, top = round(x * (456 - 224)), round(y * (256 - 224))
        part = whole[:, top : top + 224, left : left + 224]
        seen = decoder(film, times, Crop(224, 256, x, y, flip))
        np.testing.assert_array_equal(seen, part[:, :, ::-1] if flip else part)


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize(("size", "short_side"), [(112, 128), (64, 96), (224, 300)])
def test_a_scaled_crop_is_near_the_same_part_of_the_scaled_picture(
    tmp_path: Path, decoder: Decoder, size: int, short_side: int
) -> None:
    film, times = patterned(tmp_path, {}), [0.5, 1.5]
    width = 2 * round(456 * short_side / 256 / 2)
    whole = as_rgb(film, times, width, short_side).astype(int)
    left, top = (width - size) // 2, (short_side - size) // 2
    seen = decoder(film, times, Crop(size, short_side)).astype(int)
    difference = np.abs(seen - whole[:, top : top + size, left : left + size])
    assert difference.mean() < 4
    assert np.percentile(difference, 99) < 12


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize("crop", [Crop(112, 128, 0.2, 0.9), Crop(96, 128, 0.7, 0.1, area=0.3, aspect=1.2)])
def test_flipped_pictures_are_mirrored(tmp_path: Path, decoder: Decoder, crop: Crop) -> None:
    film = patterned(tmp_path, {})
    straight = decoder(film, [0.5, 1.0], crop).astype(int)
    mirrored = decoder(film, [0.5, 1.0], Crop(**{**vars(crop), "flip": True})).astype(int)
    assert np.abs(mirrored - straight[:, :, ::-1]).max() <= 1
    assert np.abs(mirrored - straight).max() > 50


@pytest.mark.parametrize("decoder", INSTALLED)
@pytest.mark.parametrize("spoilt", ["not a film", "cut off", "sound only", "nothing"])
def test_what_is_no_film_is_called_corrupt(lab: Lab, tmp_path: Path, decoder: Decoder, spoilt: str) -> None:
    lab.make_proxy(tmp_path / "film.mp4", 2)
    film = (tmp_path / "film.mp4").read_bytes()
    lab.make_sound(tmp_path / "sound.m4a", 2)
    sound = (tmp_path / "sound.m4a").read_bytes()
    data = {"not a film": b"no film" * 500, "cut off": film[: len(film) // 2], "sound only": sound, "nothing": b""}
    with pytest.raises(CorruptObject, match="clip"):
        decoder(data[spoilt], [0.5], WHOLE)


def test_all_decoders_give_the_same_pixels(tmp_path: Path) -> None:
    """Exactly where nothing is scaled; else within what two ways of scaling differ by."""
    film = patterned(tmp_path, {"colorspace": "bt709"})
    for crop, most in ((Crop(224, 256, 0.3, 0.6), 0.0), (Crop(112, 128, 0.3), 2.0), (Crop(96, 128, area=0.5), 2.0)):
        first, *others = [each(film, [0.2, 0.7, 1.1], crop).astype(int) for each in INSTALLED]
        assert first.std() > 20
        assert all(np.abs(other - first).mean() <= most for other in others)


def test_a_decoder_that_is_not_installed_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ConfigError, match="pip install torchcodec") as refused:
        check_decoder(ClipSettings(decoder="torchcodec"))
    assert "\n" not in str(refused.value)
    check_decoder(ClipSettings())


SIDES = st.integers(2, 500)
SHARES = st.floats(0, 1)


@given(SIDES, SIDES, st.integers(1, 300), st.integers(0, 200), SHARES, SHARES, st.none() | st.floats(0.01, 1))
def test_boxes_lie_in_the_picture(
    width: int, height: int, size: int, room: int, x: float, y: float, area: float | None
) -> None:
    crop = Crop(size, size + room, x, y, area=area, aspect=0.5 + x)
    box = crop.box(width, height)
    assert box.left >= 0
    assert box.top >= 0
    assert box.left + box.width <= width + 1e-6
    assert box.top + box.height <= height + 1e-6
    even = box.even(width, height)
    assert all(number % 2 == 0 for number in even)
    for exact, whole in zip((box.left, box.top, box.width, box.height), even, strict=True):
        assert abs(exact - whole) <= 3
    assert even[0] + even[2] <= width
    assert even[1] + even[3] <= height


def test_a_resized_crop_has_the_area_and_shape_that_were_drawn() -> None:
    box = Crop(224, 256, 0.25, 0.5, area=0.2, aspect=1.25).box(456, 256)
    assert box.width * box.height == pytest.approx(0.2 * 456 * 256)
    assert box.width / box.height == pytest.approx(1.25)
    assert box.left == pytest.approx(0.25 * (456 - box.width))
    whole = Crop(224, 256, area=1.0).box(256, 256)
    assert (whole.left, whole.top, whole.width, whole.height) == (0, 0, 256, 256)
