"""A small root with proxies whose pictures carry their frame number and whose sound beeps each second."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.container import OutputContainer

from sayso.ids import narration_id
from sayso.root import Root
from sayso.rows import Media, Narration, Row, Shard, SourceFacts, Video
from shards.settings import ShardSettings
from shards.stage import MakeShards

RATE = 16000
BITS = 9
BAR_PX = 26
FIRST_PX = 52
"""Bits lie in bars beside each other, low ones left, all within the 240 px in the centre of 320."""


def _picture(number: int, width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        left = FIRST_PX + bit * BAR_PX
        picture[:, left : left + BAR_PX] = 255 * ((number >> bit) & 1)
    return picture


def _beep(container: OutputContainer, sound: AudioStream, seconds: float) -> None:
    """A tenth of a second at the beginning of each second."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = (np.sin(2 * np.pi * 1000 * time) * (time % 1.0 < 0.1) * 0.5).astype(np.float32)
    for first in range(0, len(wave), 1024):
        piece = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], format="fltp", layout="mono")
        piece.sample_rate, piece.pts, piece.time_base = RATE, first, Fraction(1, RATE)
        container.mux(sound.encode(piece))
    container.mux(sound.encode())


class Lab:
    """What the tests of shards make their small worlds with."""

    @staticmethod
    def make_proxy(
        path: Path, seconds: float, *, b_frames: int = 3, audio: bool = True, late: float = 0.0, width: int = 320
    ) -> None:
        """320x240, 10 fps, a key frame each second, AAC 16 kHz mono; the picture may begin `late` seconds."""
        options = {"g": "10", "keyint_min": "10", "bf": str(b_frames), "sc_threshold": "0", "threads": "1"}
        with av.open(str(path), "w", format="mp4") as container:
            video = container.add_stream("libx264", rate=10, options=options)
            video.width, video.height, video.pix_fmt = width, 240, "yuv420p"
            sound = container.add_stream("aac", rate=RATE, layout="mono") if audio else None
            for number in range(round(late * 10), round(seconds * 10)):
                frame = av.VideoFrame.from_ndarray(_picture(number, width, 240), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(video.encode(frame))
            container.mux(video.encode())
            if sound is not None:
                _beep(container, sound, seconds)

    @staticmethod
    def make_sound(path: Path, seconds: float) -> None:
        """Beeps alone, AAC 16 kHz mono."""
        with av.open(str(path), "w", format="mp4") as container:
            _beep(container, container.add_stream("aac", rate=RATE, layout="mono"), seconds)

    @staticmethod
    def number(row: Sequence[int], left: int = 0) -> int:
        """The number burnt into a picture, from a row of grey values that begins `left` px into it."""
        return sum(int(row[FIRST_PX - left + bit * BAR_PX + BAR_PX // 2] > 128) << bit for bit in range(BITS))

    @staticmethod
    def seen(data: bytes) -> list[tuple[float, int]]:
        """Of each picture of a clip: its time, and the number burnt into it."""
        found = []
        with av.open(io.BytesIO(data), "r") as container:
            for frame in container.decode(video=0):
                row = frame.to_ndarray(format="gray")[120]
                assert frame.time is not None
                found.append((frame.time, Lab.number(row)))
        return found

    @staticmethod
    def beeps(data: bytes) -> list[float]:
        """When the beeps of a clip begin."""
        pieces, begin = [], None
        with av.open(io.BytesIO(data), "r") as container:
            for frame in container.decode(audio=0):
                begin = frame.time if begin is None else begin
                pieces.append(frame.to_ndarray()[0])
        loud = np.flatnonzero(np.abs(np.concatenate(pieces)) > 0.15)
        assert begin is not None
        onsets = [loud[0], *(b for a, b in pairwise(loud) if b - a > 3000)]
        return [begin + float(onset) / RATE for onset in onsets]

    @staticmethod
    def append(root: Root, rows: Iterable[Row]) -> None:
        rows = list(rows)
        records = [{**row.model_dump(), "made_by": "test", "made_from": "test"} for row in rows]
        root.table(type(rows[0])).append(records)

    @staticmethod
    def narration(video: str, start: float, end: float, text: str = "", *, kept: bool = True) -> Narration:
        return Narration(
            narration_id=narration_id(video, "asr:tiny", start),
            video_id=video,
            start=start,
            end=end,
            text=text or f"{video} says at {start}",
            source="asr:tiny",
            language="en",
            kept=kept,
        )

    @staticmethod
    def media_row(video: str, data: bytes, seconds: float, *, width: int = 320, source: str = "") -> Media:
        """`source` names the bytes that the proxy was made of; by default no other video has the same."""
        digest = hashlib.sha256(data).hexdigest()
        origin = hashlib.sha256((source or video).encode()).hexdigest()
        return Media(
            video_id=video,
            key=f"media/{video}/proxy.mp4",
            sha256=digest,
            bytes=len(data),
            duration=seconds,
            width=width,
            height=240 if width else 0,
            fps=10,
            audio=True,
            source=SourceFacts(sha256=origin, bytes=len(data), container="mp4", duration=seconds),
        )

    @staticmethod
    def add_videos(root: Root, ids: Sequence[str], proxy: bytes, seconds: float) -> None:
        """Videos whose proxies are the same, with a narration every 2 s."""
        for video in ids:
            root.storage.put_bytes(proxy, f"media/{video}/proxy.mp4")
        Lab.append(root, [Video(video_id=v, url=f"file:///{v}", task_id="tyre") for v in ids])
        Lab.append(root, [Lab.media_row(v, proxy, seconds) for v in ids])
        Lab.append(root, [Lab.narration(v, t + 0.25, t + 1.5) for v in ids for t in range(0, int(seconds), 2)])

    @staticmethod
    def make_shards(root: Root, settings: ShardSettings) -> list[Shard]:
        """Plan, make what is not made yet and publish, as the engine does; the new shards."""
        stage = MakeShards(root, settings)
        stage.begin()
        stage.open()
        done = set(root.table(Shard).keys().to_pylist())
        shards = [shard for plan in stage.inputs(set(stage.input_keys().to_pylist()) - done) for shard in stage(plan)]
        if shards:
            Lab.append(root, shards)
        stage.end()
        return shards


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds, with B-frames."""
    path = tmp_path_factory.mktemp("proxy") / "proxy.mp4"
    Lab.make_proxy(path, 12)
    return path


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()
