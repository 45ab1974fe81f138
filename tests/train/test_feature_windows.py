"""The frames that models see, against the decoder of clips asked for the same times."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sayso.errors import CorruptObject
from shards.crop import Crop
from shards.decode import Pixels, decode
from tests.films import COLOURS, film
from tests.shards.conftest import Lab
from train.features.windows import Sight, View, rows_of, windows

SMALL = Crop(size=32, short_side=40)
VIEWS = {
    "a picture a second": View(Sight(Crop(size=48, short_side=48)), 1.0, 12),
    "windows that overlap": View(Sight(SMALL, 8, 5.0), 1.5, 18),
    "windows with gaps": View(Sight(SMALL, 3, 10.0), 0.5, 6),
    "faster than the film": View(Sight(SMALL, 5, 24.0), 4.0, 48),
    "longer than the film": View(Sight(SMALL, 40, 2.0), 0.25, 3),
}


@pytest.fixture(scope="module", params=[(3, 0.0), (0, 0.0), (3, 2.0)], ids=["", "no B-frames", "a late picture"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    b_frames, late = request.param
    path = tmp_path_factory.mktemp("film") / "proxy.mp4"
    Lab.make_proxy(path, 12, b_frames=b_frames, late=late)
    return path


def test_each_window_is_what_is_shown_at_its_times(proxy: Path) -> None:
    found: dict[str, list[Pixels]] = {name: [] for name in VIEWS}
    for name, window in windows(proxy, VIEWS):
        found[name].append(window)
    data = proxy.read_bytes()
    for name, view in VIEWS.items():
        assert len(found[name]) == view.rows
        frames, rate = view.sight.frames, view.sight.frame_fps
        for row, window in enumerate(found[name]):
            middle = (row + 0.5) / view.fps
            times = [middle + (j - (frames - 1) / 2) / rate for j in range(frames)]
            assert np.array_equal(window, decode(data, times, view.sight.crop)), (name, row)


def test_a_row_sees_the_middle_of_what_it_stands_for(tmp_path: Path) -> None:
    """A film that is red, then green, then blue, for two seconds each."""
    path = tmp_path / "film.mp4"
    film(path, [COLOURS[name] for name in ("red", "green", "blue")], seconds=6)
    view = View(Sight(Crop(size=48, short_side=48)), 0.5, 3)
    seen = [window[0, :, :8].mean(axis=(0, 1)) for _, window in windows(path, {"2d": view})]
    assert [int(colour.argmax()) for colour in seen] == [0, 1, 2]


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """Also where sound goes on long behind the picture."""
    path = tmp_path / "film.mp4"
    film(path, [COLOURS["red"]], seconds=30)
    views = {"3d": View(Sight(SMALL, 8, 5.0), 2.0, 6000), "2d": View(Sight(SMALL), 1.0, 3000)}
    rows = 0
    tracemalloc.start()
    try:
        for _, window in windows(path, views):
            rows += 1
            assert window.shape[1:] == (32, 32, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 9000
    # All windows together have 160 MB.
    assert peak < 2e6


def test_what_is_no_film_is_called_corrupt(tmp_path: Path) -> None:
    views = {"2d": VIEWS["a picture a second"]}
    nothing, sound = tmp_path / "nothing.mp4", tmp_path / "sound.mp4"
    nothing.write_bytes(b"no film")
    Lab.make_sound(sound, 2)
    for path, why in ((nothing, "cannot be decoded"), (sound, "has no picture")):
        with pytest.raises(CorruptObject, match=why):
            list(windows(path, views))


def test_a_video_has_a_row_for_each_part_of_it_and_one_at_least() -> None:
    assert [rows_of(duration, 1.5) for duration in (0.0, 0.5, 8.0, 8.01, 2 / 3)] == [1, 1, 12, 13, 1]
    assert rows_of(3.0000000001, 10.0) == 30
