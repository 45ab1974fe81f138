"""What foreign files that are broken, or are not what they say, can and cannot do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ingest.ffmpeg import FFmpeg
from ingest.jail import Limits, run
from ingest.normalise import NormaliseSettings, Proxy, judge
from sayso.errors import NoSpace, Permanent, Retry

Make = Callable[..., Path]
Normalised = Callable[..., Proxy]

SCENE = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=4")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=4")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def pretenders(secret: Path) -> dict[str, str]:
    """Texts that would make ffmpeg open `secret`, or draw something, were it let."""
    return {
        "text": "not a video at all\n" * 99,
        "empty": "",
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{secret}\n#EXT-X-ENDLIST\n",
        "script": f"ffconcat version 1.0\nfile '{secret}'\n",
        "drawing": '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="9" height="9"/></svg>',
        "session": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na={secret}\n",
        "manifest": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{secret}</BaseURL></MPD>',
        "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nhello\n",
    }


@pytest.mark.parametrize("kind", pretenders(Path()))
@pytest.mark.parametrize("ending", ["mp4", "m3u8"])
def test_a_text_is_no_video_whatever_it_is_called(
    kind: str, ending: str, make: Make, normalised: Normalised, tmp_path: Path
) -> None:
    secret = make("secret.ts", *SCENE, *H264)
    pretender = tmp_path / f"x.{ending}"
    pretender.write_text(pretenders(secret)[kind])
    with pytest.raises(Permanent) as told:
        normalised(pretender)
    assert told.value.reason == "not_media"
    assert not list(tmp_path.rglob("proxy.mp4"))


def test_a_picture_is_no_video(make: Make, normalised: Normalised) -> None:
    with pytest.raises(Permanent) as told:
        normalised(make("x.jpg", *SCENE, "-frames:v", "1"))
    assert told.value.reason == "not_media"


def test_subtitles_alone_are_no_video(make: Make, normalised: Normalised, tmp_path: Path) -> None:
    subtitles = tmp_path / "x.srt"
    subtitles.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n")
    with pytest.raises(Permanent) as told:
        normalised(make("x.mkv", "-i", str(subtitles)))
    assert told.value.reason == "not_media"


def test_the_name_of_a_file_is_only_a_name(make: Make, normalised: Normalised) -> None:
    for name in ("-i.mp4", "concat:a|b.mp4", "a'b\"c %03d [0:v].mp4"):
        source = make("plain.mp4", *SCENE, *H264)
        assert normalised(source.rename(source.with_name(name))).width == 320


def with_external_data(mp4: bytes, target: str) -> bytes:
    """An MP4 whose samples are said to lie in another file: its data reference becomes a Macintosh alias to `target`.

    The index must be the last box, so that a longer one moves no sample.
    """

    def rewritten(data: bytes) -> bytes:
        out, at = b"", 0
        while at < len(data):
            size, kind = struct.unpack(">I4s", data[at : at + 8])
            body = data[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
                body = rewritten(body)
            elif kind == b"dref":
                body = struct.pack(">II", 0, 1) + alias
            out += struct.pack(">I4s", 8 + len(body), kind) + body
            at += size
        return out

    path = target.encode()
    names = bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + bytes(4) + bytes(16)  # volume and file: unnamed
    absolute_path = struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2)
    record = names + absolute_path + struct.pack(">HH", 0xFFFF, 0)
    alias = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    return rewritten(mp4)


def test_samples_in_another_file_are_not_fetched(make: Make, normalised: Normalised, ffmpeg: FFmpeg) -> None:
    secret = make("secret.mp4", *SCENE, *H264)
    outside = secret.with_name("outside.mp4")
    outside.write_bytes(with_external_data(secret.read_bytes(), str(secret)))
    outside.write_bytes(outside.read_bytes().replace(b"mdat", b"free"))
    gullible = ("-enable_drefs", "1", "-use_absolute_path", "1", "-i", str(outside))
    assert make("fetched.mkv", *gullible, "-c", "copy").stat().st_size > 10_000
    with pytest.raises(Permanent) as told:
        normalised(outside)
    assert told.value.reason in ("undecodable", "truncated", "not_media")


@pytest.mark.parametrize("place", ["+faststart", "0"])
def test_a_file_that_was_cut_off_is_told(place: str, make: Make, normalised: Normalised) -> None:
    whole = make("x.mp4", *SCENE, *TONE, *H264, "-movflags", place)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with pytest.raises(Permanent) as told:
        normalised(whole)
    assert told.value.reason == "truncated"


def test_a_file_with_rotten_bytes_goes_through_or_is_refused(make: Make, normalised: Normalised) -> None:
    rotten = make("x.mp4", *SCENE, *TONE, *H264, "-movflags", "+faststart")
    data = bytearray(rotten.read_bytes())
    for at in range(len(data) // 2, len(data), 997):
        data[at] ^= 0xFF
    rotten.write_bytes(data)
    with suppress(Permanent):
        assert normalised(rotten).duration == pytest.approx(4, abs=0.4)


def test_time_and_memory_have_an_end(make: Make, normalised: Normalised) -> None:
    source = make("x.mp4", *SCENE, *H264)
    with pytest.raises(Retry) as late:
        normalised(source, NormaliseSettings(seconds_at_least=0.001, seconds_per_second=0.001))
    assert late.value.reason == "ffmpeg_timeout"
    large = make("large.mkv", "-f", "lavfi", "-i", "color=size=7680x4320:rate=5:duration=1", *H264)
    assert normalised(large).duration == pytest.approx(1, abs=0.1)
    with pytest.raises(Permanent):
        normalised(large, NormaliseSettings(memory_bytes=1 << 28))


def test_a_full_disk_is_no_fault_of_the_video(tmp_path: Path, ffmpeg: FFmpeg) -> None:
    limits = Limits(seconds=30, cpu_seconds=30, memory_bytes=4 << 30, file_bytes=1 << 30)
    command = [str(ffmpeg.path), "-nostdin", "-v", "error", *SCENE, "-f", "rawvideo", "-y", "file:/dev/full"]
    outcome = run(command, folder=tmp_path, stdout=tmp_path / "printed", limits=limits)
    with pytest.raises(NoSpace, match="no space left on"):
        judge(outcome, tmp_path)
