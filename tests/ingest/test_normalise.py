"""What the proxy of a file is, whatever the file is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.ffmpeg import FFmpeg
from ingest.normalise import NormaliseSettings, Proxy, normalise, proxy_size, still_intervals
from ingest.probe import VideoStream, probe
from sayso.errors import Permanent, Skip
from sayso.rows import Interval

Make = Callable[..., Path]
Normalised = Callable[..., Proxy]

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def picture(size: str = "320x240", rate: str = "25", seconds: float = 2) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}")


def sound(seconds: float = 2, rate: int = 48000) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate={rate}:duration={seconds}")


def assert_profile(proxy: Proxy) -> None:
    """The promises that hold for every proxy with a picture."""
    with av.open(str(proxy.path)) as container:
        assert container.metadata.keys() <= {"major_brand", "minor_version", "compatible_brands"}
        for stream in container.streams:
            assert stream.start_time == 0
        video = container.streams.video[0]
        assert (video.codec.name, video.pix_fmt, video.sample_aspect_ratio or 1) == ("h264", "yuv420p", 1)
        assert (video.width, video.height) == (proxy.width, proxy.height)
        assert proxy.width % 2 == proxy.height % 2 == 0
        packets = [packet for packet in container.demux(video) if packet.pts is not None]
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None]
        assert times == pytest.approx([number / 10 for number in range(len(times))])
        assert [packet.pts == packet.dts for packet in packets] == [True] * len(packets)
        assert [packet.is_keyframe for packet in packets] == [number % 10 == 0 for number in range(len(packets))]
    if proxy.audio:
        with av.open(str(proxy.path)) as container:
            audio = container.streams.audio[0]
            assert (audio.codec.name, audio.sample_rate, audio.layout.name) == ("aac", 16000, "mono")


CASES = {
    "plain, B-frames": ((*picture(), *sound(), *H264, "-bf", "3"), "x.mp4", (320, 240)),
    "larger than the proxy": ((*picture("1280x720"), *H264), "x.mp4", (456, 256)),
    "upright": ((*picture("540x960"), *H264), "x.mkv", (256, 456)),
    "odd sides": ((*picture("101x77"), "-c:v", "ffv1"), "x.mkv", (100, 76)),
    "flat pixels": ((*picture("160x240"), "-vf", "setsar=2/1", *H264), "x.mp4", (320, 240)),
    "full range of light": ((*picture(), "-c:v", "mjpeg", "-pix_fmt", "yuvj422p"), "x.avi", (320, 240)),
    "slow": ((*picture(rate="3"), *H264), "x.mp4", (320, 240)),
    "NTSC": ((*picture(rate="30000/1001"), *sound(rate=44100), *H264), "x.mp4", (320, 240)),
    "changing rate": (
        (*picture(), "-vf", r"select='lt(n\,20)+not(mod(n\,3))'", "-fps_mode", "vfr", *H264),
        "x.mkv",
        (320, 240),
    ),
    "not from 0": ((*picture(), *sound(), *H264, "-output_ts_offset", "700"), "x.ts", (320, 240)),
    "VP9 and Opus": (
        (*picture(), *sound(), "-cpu-used", "8", "-deadline", "realtime"),
        "x.webm",
        (320, 240),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_source_comes_to_the_same_profile(case: str, make: Make, normalised: Normalised) -> None:
    arguments, name, size = CASES[case]
    proxy = normalised(make(name, *arguments))
    assert_profile(proxy)
    assert (proxy.width, proxy.height, proxy.fps) == (*size, 10.0)
    assert proxy.duration == pytest.approx(2.0, abs=0.11)
    assert proxy.audio == any("sine" in argument for argument in arguments)


def test_a_picture_that_lies_on_its_side_is_stood_up(make: Make, normalised: Normalised) -> None:
    lying = make("lying.mp4", *picture("320x240"), *H264)
    turned = make("turned.mp4", "-display_rotation", "90", "-i", str(lying), "-c", "copy")
    proxy = normalised(turned)
    assert (proxy.width, proxy.height) == (240, 320)
    assert_profile(proxy)


def test_sound_alone_has_no_picture_even_with_a_cover(make: Make, normalised: Normalised) -> None:
    cover = make("cover.jpg", *picture(), "-frames:v", "1")
    song = make(
        "song.mp3", *sound(3), "-i", str(cover), "-map", "0", "-map", "1", "-c:v", "copy", "-id3v2_version", "3"
    )
    proxy = normalised(song)
    assert (proxy.width, proxy.height, proxy.fps, proxy.still) == (0, 0, 0.0, [])
    assert proxy.audio
    assert proxy.duration == pytest.approx(3, abs=0.1)


def test_the_largest_picture_and_the_fullest_sound_are_taken(make: Make, tmp_path: Path, ffmpeg: FFmpeg) -> None:
    streams = (*picture("160x120"), *picture("320x240"), *sound(rate=8000), *sound(rate=44100))
    several = make(
        "x.mkv", *streams, *(part for n in range(4) for part in ("-map", str(n))), *H264, "-disposition", "0"
    )
    found = probe(several, tmp_path, ffmpeg)
    assert found.video and found.audio
    assert (found.video.index, found.audio.index) == (1, 3)


def test_the_same_file_gives_the_same_bytes(make: Make, normalised: Normalised) -> None:
    source = make("x.mp4", *picture("640x480"), *sound(), *H264)
    assert normalised(source).path.read_bytes() == normalised(source).path.read_bytes()


def test_picture_and_sound_of_two_files_are_put_together(make: Make, tmp_path: Path, ffmpeg: FFmpeg) -> None:
    silent = probe(make("picture.mp4", *picture(), *H264), tmp_path, ffmpeg)
    speech = probe(make("sound.webm", *sound()), tmp_path, ffmpeg)
    proxy = normalise(silent.with_sound(speech), tmp_path / "proxy.mp4", NormaliseSettings(), ffmpeg)
    assert_profile(proxy)
    assert proxy.audio


def test_the_groups_of_pictures_are_as_long_as_is_asked(make: Make, normalised: Normalised) -> None:
    proxy = normalised(make("x.mp4", *picture(), *H264), NormaliseSettings(fps=15, key_frame_seconds=0.4))
    with av.open(str(proxy.path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 6, 12, 18, 24]


def test_a_preset_that_x264_does_not_have_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="veryfast"):
        NormaliseSettings.model_validate({"preset": "fastest"})


def flash(path: Path) -> float:
    """When the picture turns white."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return next(float(frame.time or 0) for frame in frames if frame.to_ndarray(format="gray").mean() > 100)


def beep(path: Path) -> float:
    """When the first tone is heard."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return float(frames[0].time or 0) + float(np.argmax(np.abs(samples) > 0.05)) / 16000


@pytest.mark.parametrize(
    ("name", "video_starts", "audio_starts"),
    [
        ("x.mkv", 0.0, 0.0),
        ("x.mkv", 0.0, 0.3),
        ("x.mkv", 0.5, 0.0),
        ("x.mkv", 0.5, 0.3),
        ("x.mp4", 0.0, 0.04),
        ("x.mp4", 0.5, 0.0),
        ("x.ts", 0.05, 0.3),
    ],
)
def test_a_flash_and_a_beep_stay_together(
    name: str, video_starts: float, audio_starts: float, make: Make, normalised: Normalised
) -> None:
    start = min(video_starts, audio_starts)
    at = f"between(t,{start + 1},{start + 1.5})"
    light = f"color=black:s=64x48:r=20:d=3,drawbox=c=white:t=fill:enable='{at}',trim=start={video_starts}[v]"
    tone = f"aevalsrc='if({at},0.5*sin(2*PI*1000*t),0)':s=48000:d=3,atrim=start={audio_starts}[a]"
    graph = ("-filter_complex", f"{light};{tone}", "-map", "[v]", "-map", "[a]")
    proxy = normalised(make(name, *graph, *H264, "-bf", "2", "-c:a", "aac"))
    assert_profile(proxy)
    assert flash(proxy.path) == pytest.approx(1.0, abs=0.001)
    assert beep(proxy.path) == pytest.approx(1.0, abs=0.02)


def test_where_the_picture_does_not_change_is_told(make: Make, normalised: Normalised) -> None:
    parts = "color=red:s=64x48:r=25:d=3[a];testsrc2=s=64x48:r=25:d=3[b];color=blue:s=64x48:r=25:d=3[c]"
    source = make("x.mkv", "-filter_complex", f"{parts};[a][b][c]concat=n=3[v]", "-map", "[v]", "-c:v", "ffv1")
    still = normalised(source).still
    assert [time for part in still for time in (part.start, part.end)] == pytest.approx([0, 3, 6, 9], abs=0.11)


def test_av1_is_read_or_the_fix_is_told(make: Make, normalised: Normalised, ffmpeg: FFmpeg) -> None:
    source = make("x.mp4", *picture(seconds=1), "-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1")
    if ffmpeg.decodes_av1:
        assert_profile(normalised(source))
        return
    with pytest.raises(Permanent, match="put an ffmpeg with libdav1d on PATH") as told:
        normalised(source)
    assert told.value.reason == "unsupported_codec"


def test_what_is_not_taken_is_skipped(make: Make, normalised: Normalised) -> None:
    source = make("x.mp4", *picture(), *H264)
    with pytest.raises(Skip) as told:
        normalised(source, NormaliseSettings(max_duration=1))
    assert told.value.reason == "too_long"
    with pytest.raises(Skip) as told:
        normalised(source, NormaliseSettings(max_side=319))
    assert told.value.reason == "too_large"


def test_one_that_hides_how_long_it_is_is_skipped_too(make: Make, normalised: Normalised) -> None:
    source = make("x.ts", *picture(seconds=4), *H264)
    with pytest.raises(Skip) as told:
        normalised(source, NormaliseSettings(max_duration=2))
    assert told.value.reason == "too_long"


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(16, 512))
def test_a_proxy_is_even_not_larger_and_in_proportion(width: int, height: int, short_side: int) -> None:
    video = VideoStream(
        path=Path(), begin=0.0, index=0, codec="", width=width, height=height, coded_pixels=1, fps=None, duration=None
    )
    ours = proxy_size(video, short_side)
    assert all(side % 2 == 0 and side >= 2 for side in ours)
    assert min(ours) <= max(2, short_side + 1)
    assert all(side <= max(2, source) + 1 for side, source in zip(ours, (width, height), strict=True))
    scale = min(1.0, short_side / min(width, height))
    assert all(abs(side - source * scale) <= 2 for side, source in zip(ours, (width, height), strict=True))


@given(st.lists(st.floats(0, 1e4), max_size=9, unique=True), st.booleans())
def test_still_times_are_read_in_pairs(times: list[float], with_noise: bool) -> None:
    times = sorted(times)
    edges = [f"lavfi.freezedetect.freeze_{('start', 'end')[n % 2]}={time}" for n, time in enumerate(times)]
    noise = ["frame:12 pts:120 pts_time:12", "lavfi.other=1", "title=lavfi.freezedetect.freeze_start=3"]
    printed = "\n".join(line for edge in edges for line in ([*noise, edge] if with_noise else [edge]))
    found = still_intervals(printed, least=2)
    assert [part.start for part in found] == times[::2]
    assert [part.end for part in found] == [*times[1::2], *([float("inf")] * (len(times) % 2))]
    assert all(before.end <= after.start for before, after in pairwise(found))


def test_a_still_time_that_was_cut_short_counts_for_what_is_known() -> None:
    printed = "lavfi.freezedetect.freeze_start=1\nlavfi.freezedetect.freeze_start=9\nlavfi.freezedetect.freeze_end=12\n"
    assert still_intervals(printed, least=2) == [Interval(start=1, end=3), Interval(start=9, end=12)]
