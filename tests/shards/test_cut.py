"""Clips against the frame numbers and beeps of their source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sayso.errors import CorruptObject
from shards.cut import Proxy

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

WINDOWS = [(0, 5), (0.5, 4.2), (1.95, 7), (2, 7), (2.05, 7.33), (5.999, 11), (7, 12), (11.5, 12)]


@pytest.mark.parametrize(("start", "end"), WINDOWS)
def test_pictures_and_sound_keep_their_time(lab: Lab, proxy: Path, start: float, end: float) -> None:
    with Proxy(proxy) as source:
        clip = source.cut(start, end)
        assert source.cut(start, end).data == clip.data
    pictures = lab.seen(clip.data)
    assert clip.start == int(start)
    assert clip.end >= end
    assert pictures[0][0] == 0
    for time, number in pictures:
        assert clip.start + time == pytest.approx(number / 10, abs=0.0005)
    assert [number for _, number in pictures] == list(range(int(start) * 10, round(clip.end * 10)))
    heard = [clip.start + time for time in lab.beeps(clip.data)]
    assert len(heard) >= int(end) - int(start)
    for time in heard:
        assert time == pytest.approx(round(time), abs=0.005)


@pytest.mark.parametrize("b_frames", [0, 3])
def test_a_clip_ends_with_the_last_picture_that_its_window_needs(lab: Lab, tmp_path: Path, b_frames: int) -> None:
    lab.make_proxy(tmp_path / "proxy.mp4", 6, b_frames=b_frames)
    with Proxy(tmp_path / "proxy.mp4") as source:
        clip = source.cut(1, 3.25)
    assert 3.3 <= clip.end <= 3.3 + 0.1 * b_frames
    assert lab.seen(clip.data)[-1][1] == round(clip.end * 10) - 1


def test_a_picture_that_begins_late_keeps_its_time(lab: Lab, tmp_path: Path) -> None:
    lab.make_proxy(tmp_path / "proxy.mp4", 6, late=1.5)
    with Proxy(tmp_path / "proxy.mp4") as source:
        clip = source.cut(0, 4)
    assert clip.start == 1.5
    assert lab.seen(clip.data)[0] == (0, 15)
    assert [round(clip.start + time, 2) for time in lab.beeps(clip.data)][:2] == [2, 3]


def test_a_proxy_without_sound_gives_clips_without_sound(lab: Lab, tmp_path: Path) -> None:
    lab.make_proxy(tmp_path / "proxy.mp4", 3, audio=False)
    with Proxy(tmp_path / "proxy.mp4") as source:
        assert len(lab.seen(source.cut(1, 3).data)) == 20


def test_clips_play_from_their_first_bytes_and_name_no_tool(proxy: Path) -> None:
    with Proxy(proxy) as source:
        data = source.cut(2, 7).data
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    assert b"Lavf" not in data


def test_what_is_not_a_video_is_called_corrupt(tmp_path: Path) -> None:
    (tmp_path / "proxy.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(CorruptObject, match=r"proxy\.mp4"):
        Proxy(tmp_path / "proxy.mp4")
