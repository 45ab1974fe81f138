"""Proxies against the picture numbers and beeps of their sources, whatever the clock of the source does."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from ingest.normalise import NormaliseSettings, Proxy
from tests.counted import Seen, beeping, counting, heard, seen

Make = Callable[..., Path]
Normalised = Callable[..., Proxy]

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25")
B_FRAMES = (*X264, "-bf", "3")
OPEN = ("-c:v", "libx264", "-preset", "veryfast", "-x264-params", "open-gop=1:bframes=3:keyint=12:min-keyint=12")
VFR = ("-fps_mode", "vfr")
EACH_AS_IT_COMES = ("-fps_mode", "passthrough", "-enc_time_base", "1/90000")
WITH_GAPS = ",select='not(mod(n,3))+lt(mod(n,31),9)'"
JITTERING = ",setpts='PTS+random(1)*0.9/(30*TB)'"
STANDING = ",select='lt(t,1.03)+gt(t,{})'"


def both(rate: str, seconds: float, pictures: str = "", sound: str = "") -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", counting(rate, seconds, pictures), "-f", "lavfi", "-i", beeping(seconds, sound))


def apart(video_starts: float, audio_starts: float) -> tuple[str, ...]:
    pictures = counting("30", 3, f",trim=start={video_starts}")
    sound = beeping(3, f",atrim=start={audio_starts}")
    return ("-filter_complex", f"{pictures}[v];{sound}[a]", "-map", "[v]", "-map", "[a]")


CASES = {
    **{f"{rate} a second": ((*both(rate, 3), *B_FRAMES), "x.mp4") for rate in ("30", "25", "24000/1001", "60", "7.5")},
    "30 a second, in whole milliseconds": ((*both("30", 3), *B_FRAMES), "x.mkv"),
    "12 a second": ((*both("12", 3), *X264), "x.mp4"),
    "one in ten seconds": ((*both("1/10", 30), *X264), "x.mp4"),
    "irregular": ((*both("30", 4, WITH_GAPS), *B_FRAMES, *VFR), "x.mp4"),
    "jittering": ((*both("30", 3, JITTERING), *X264, *EACH_AS_IT_COMES), "x.mp4"),
    "a picture that stands": ((*both("25", 16, STANDING.format(14)), *B_FRAMES, *VFR), "x.mkv"),
    "a picture that stands in a stream": ((*both("25", 16, STANDING.format(14)), *B_FRAMES, *VFR), "x.ts"),
    "open groups": ((*both("30", 3), *OPEN), "x.mp4"),
    "open groups in a stream": ((*both("30", 3), *OPEN), "x.ts"),
    "a stream's clock": ((*both("30", 3), *B_FRAMES, "-output_ts_offset", "701.39"), "x.ts"),
    "a Matroska from 3.333 on": ((*both("30", 3), *B_FRAMES, "-output_ts_offset", "3.333"), "x.mkv"),
    "an MP4 from 2.345 on": ((*both("30", 3), *B_FRAMES, "-output_ts_offset", "2.345"), "x.mp4"),
    "Flash": ((*both("30", 3), *B_FRAMES, "-ar", "44100"), "x.flv"),
    "MPEG-2": ((*both("30", 3), "-c:v", "mpeg2video", "-q:v", "3", "-bf", "2"), "x.mpg"),
    "VP8 and Opus": ((*both("30", 3), "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"), "x.webm"),
    "sound later": ((*apart(0, 0.3), *B_FRAMES), "x.mp4"),
    "picture later": ((*apart(0.55, 0), *B_FRAMES), "x.mp4"),
    "picture a little later": ((*apart(0.04, 0), *B_FRAMES), "x.mkv"),
    "sound later in a stream": ((*apart(0, 0.3), *B_FRAMES), "x.ts"),
}


def check_pictures(source: Seen, proxy: Path, fps: int = 10) -> None:
    found = seen(proxy)
    assert found.begins == [Fraction(frame, fps) for frame in range(math.ceil(source.end * fps))]
    assert found.numbers == [source.at(time) for time in found.begins]


def check_sound(source: Path, proxy: Path) -> None:
    there, here = heard(source), heard(proxy)
    assert len(there) >= 2
    assert here == pytest.approx(there, abs=0.02)


@pytest.mark.parametrize("case", CASES)
def test_a_frame_is_the_picture_that_the_source_shows_then(case: str, make: Make, normalised: Normalised) -> None:
    arguments, name = CASES[case]
    source = make(name, *arguments)
    proxy = normalised(source)
    check_pictures(seen(source), proxy.path)
    check_sound(source, proxy.path)


@pytest.mark.parametrize("fps", [4, 25])
def test_so_it_is_at_other_rates(fps: int, make: Make, normalised: Normalised) -> None:
    source = make("x.mp4", *both("30000/1001", 3, WITH_GAPS), *B_FRAMES, *VFR)
    check_pictures(seen(source), normalised(source, NormaliseSettings(fps=fps)).path, fps)


@pytest.mark.parametrize("coding", [B_FRAMES, OPEN], ids=["closed", "open"])
@pytest.mark.parametrize(("name", "first"), [("x.mp4", 42), ("x.mkv", 36)])
def test_what_an_edit_list_hides_is_not_shown(
    coding: tuple[str, ...], name: str, first: int, make: Make, normalised: Normalised
) -> None:
    """Cut by copying from 1.37 s, an MP4 hides the pictures from the key frame to the cut; a Matroska shows them."""
    whole = make("whole.mp4", *both("30", 4), *coding, "-force_key_frames", "1.2")
    source = make(name, "-ss", "1.37", "-i", str(whole), "-c", "copy")
    shown = seen(source)
    assert shown.numbers[0] == first
    check_pictures(shown, normalised(source).path)
    check_sound(source, normalised(source).path)


@pytest.mark.parametrize("coding", [B_FRAMES, OPEN], ids=["closed", "open"])
def test_a_stream_may_begin_in_the_middle_of_a_group(
    coding: tuple[str, ...], make: Make, normalised: Normalised
) -> None:
    """What comes before its first key frame cannot be decoded, yet its time counts."""
    whole = make("whole.ts", *both("30", 4), *coding, "-bsf:v", "dump_extra")
    source = make("x.ts", "-ss", "1.37", "-i", str(whole), "-c", "copy")
    check_pictures(seen(source), normalised(source).path)
    check_sound(source, normalised(source).path)


@pytest.mark.parametrize("codec", [X264, B_FRAMES, ("-c:v", "mpeg4", "-q:v", "3", "-bf", "2")])
def test_a_container_without_timestamps_counts_its_pictures(
    codec: tuple[str, ...], make: Make, normalised: Normalised
) -> None:
    source = make("x.avi", *both("30", 3), *codec, "-c:a", "pcm_s16le")
    assert seen(normalised(source).path).numbers == [3 * frame for frame in range(30)]
    check_sound(source, normalised(source).path)


@pytest.mark.parametrize(
    "gap", ["between(mod(t,1),0.55,0.6)", "eq(mod(n,50),33)"], ids=["50 ms", "10 ms, twice a second"]
)
def test_gaps_in_the_sound_do_not_move_what_follows(gap: str, make: Make, normalised: Normalised) -> None:
    gaps = f",asetnsamples=480,aselect='not({gap})'"
    source = make("x.mkv", *both("30", 5, sound=gaps), *X264, "-c:a", "pcm_s16le")
    assert heard(source) == pytest.approx([0, 1, 2, 3, 4], abs=0.001)
    check_sound(source, normalised(source).path)
