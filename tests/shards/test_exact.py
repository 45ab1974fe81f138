"""From a source file to its clips: what is seen and heard in a clip is what the source shows and plays at that time.

Read by PyAV, by the reader's own decoder, and by ffmpeg's command line, as others may read a shard.
"""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ingest.ffmpeg import find_ffmpeg
from ingest.normalise import NormaliseSettings, normalise
from ingest.probe import probe
from shards.crop import Crop
from shards.cut import Clip, Proxy
from shards.decode import decode
from tests.counted import SIDE, Seen, beeping, counting, heard, number, seen

B_FRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "3")
IRREGULAR = ",select='not(mod(n,3))+lt(mod(n,31),9)'"
WINDOWS = [(0.0, 2.0), (1.3, 3.2), (2.05, 4.33), (3.999, 5.0)]


def both(video: str, audio: str) -> tuple[str, ...]:
    return ("-filter_complex", f"{video}[v];{audio}[a]", "-map", "[v]", "-map", "[a]", *B_FRAMES)


CASES = {
    "constant": ("x.mp4", both(counting("30000/1001", 6), beeping(6))),
    "irregular, from a TV stream": (
        "x.ts",
        (*both(counting("30", 6, IRREGULAR), beeping(6)), "-fps_mode", "vfr", "-output_ts_offset", "700"),
    ),
    "picture later": ("x.mkv", both(counting("25", 6, ",trim=start=0.55"), beeping(6))),
    "sound later": ("x.mp4", both(counting("25", 6), beeping(6, ",atrim=start=0.3"))),
}


def ffmpeg(*arguments: str) -> bytes:
    command = [str(find_ffmpeg().path), "-nostdin", "-v", "error", "-y", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout


def made(folder: Path, name: str, arguments: tuple[str, ...]) -> Path:
    ffmpeg(*arguments, str(folder / name))
    return folder / name


def proxy_of(source: Path, sound: Path | None = None) -> Path:
    folder = source.parent / "work"
    folder.mkdir()
    found = probe(source, folder, find_ffmpeg())
    if sound:
        found = found.with_sound(probe(sound, folder, find_ffmpeg()))
    return normalise(found, folder / "proxy.mp4", NormaliseSettings(), find_ffmpeg()).path


def frames(clip: Clip) -> list[Fraction]:
    """The times of a clip's frames, in seconds of the source."""
    first, end = round(clip.start * 10), round(clip.end * 10)
    assert (clip.start, clip.end) == (first / 10, end / 10)
    return [Fraction(frame, 10) for frame in range(first, end)]


def check_pictures(clip: Clip, source: Seen) -> None:
    times = frames(clip)
    wanted = [source.at(time) for time in times]
    found = seen(clip.data)
    assert found.begins == [time - times[0] for time in times]
    assert found.numbers == wanted

    crop = Crop(size=SIDE, short_side=SIDE)
    inside = [float(time) - clip.start for time in times]
    for moved in (0.0, 0.04):
        pictures = decode(clip.data, [time + moved for time in inside], crop)
        assert [number(picture) for picture in pictures] == wanted
    assert number(decode(clip.data, inside[-3:], crop)[0]) == wanted[-3]


def check_sound(clip: Clip, beeps: list[float]) -> None:
    """A beep that the clip begins in is heard from its first moment on; one that it ends in may be lost."""
    length = clip.end - clip.start
    since = [beep - clip.start for beep in beeps]
    inside = [max(0.0, beep) for beep in since if -0.08 < beep < length - 0.05]
    assert inside
    ways = (heard(clip.data), heard_by_ffmpeg(clip.data, "asetpts=N/SR/TB"), heard_by_ffmpeg(clip.data, AS_TIMED))
    for onsets in ways:
        assert [onset for onset in onsets if onset < length - 0.05] == pytest.approx(inside, abs=0.02)


AS_TIMED = "aresample=async=1:first_pts=0"


def heard_by_ffmpeg(data: bytes, way: str) -> list[float]:
    """Beeps in what ffmpeg's command line decodes, laid down from 0 on or by the timestamps."""
    done = subprocess.run(
        [find_ffmpeg().path, "-v", "error", "-i", "pipe:0", "-af", way, "-f", "f32le", "pipe:1"],
        input=data,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    loud = np.flatnonzero(np.abs(np.frombuffer(done.stdout, "<f4")) > 0.15) / 16000
    return [float(time) for place, time in enumerate(loud) if place == 0 or time - loud[place - 1] > 0.5]


@pytest.mark.parametrize("case", CASES)
def test_a_clip_shows_and_sounds_what_the_source_does(case: str, tmp_path: Path) -> None:
    source = made(tmp_path, *CASES[case])
    shown, beeps = seen(source), heard(source)
    with Proxy(proxy_of(source)) as proxy:
        for start, end in WINDOWS:
            clip = proxy.cut(start, end)
            assert clip.start == int(start)
            assert clip.end >= end
            check_pictures(clip, shown)
            check_sound(clip, beeps)


@pytest.mark.parametrize("case", CASES)
def test_picture_and_sound_in_two_files_keep_their_clock(case: str, tmp_path: Path) -> None:
    source = made(tmp_path, *CASES[case])
    shown, beeps = seen(source), heard(source)
    apart = ("-copyts", "-i", str(source), "-c", "copy", "-avoid_negative_ts", "disabled")
    picture = made(tmp_path, f"picture{source.suffix}", (*apart, "-map", "0:v"))
    sound = made(tmp_path, f"sound{source.suffix}", (*apart, "-map", "0:a"))
    with Proxy(proxy_of(picture, sound)) as proxy:
        for start, end in WINDOWS:
            check_pictures(proxy.cut(start, end), shown)
            check_sound(proxy.cut(start, end), beeps)


def test_what_an_edit_list_hides_is_in_no_clip(tmp_path: Path) -> None:
    whole = made(tmp_path, "whole.mp4", both(counting("30", 7), beeping(7)))
    source = made(tmp_path, "x.mp4", ("-ss", "1.37", "-i", str(whole), "-c", "copy"))
    shown, beeps = seen(source), heard(source)
    assert shown.numbers[0] == 42
    with Proxy(proxy_of(source)) as proxy:
        for start, end in WINDOWS:
            check_pictures(proxy.cut(start, end), shown)
            check_sound(proxy.cut(start, end), beeps)
