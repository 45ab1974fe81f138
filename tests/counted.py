"""Media whose pictures carry their number in bars and whose sound beeps at each second, and what is seen and heard.

The truth of a file is what its own timestamps say, read by PyAV: which picture is shown at a time, counted from the
container's start, and when a beep begins.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer

from shards.decode import Pixels

SIDE = 160
_BITS = 10
_BAR = SIDE // _BITS


def counting(rate: str, seconds: float, filters: str = "") -> str:
    """A filter graph: square pictures, numbered from 0 by bars beside each other (white for 1, low bits left)."""
    bars = f"geq=lum='255*mod(floor(N/pow(2,floor(X/{_BAR}))),2)'"
    square = f"scale={SIDE}:{SIDE}:flags=neighbor,setsar=1,format=yuv420p"
    return f"color=black:s={SIDE}x2:r={rate}:d={seconds},format=gray,{bars},{square}{filters}"


def beeping(seconds: float, filters: str = "", rate: int = 48000) -> str:
    """A filter graph: a tone of a tenth of a second at each second."""
    return f"aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t,1),0.1)':s={rate}:d={seconds}{filters}"


def number(picture: Pixels) -> int:
    """The number in a picture of SIDE px, grey or RGB."""
    row = picture[SIDE // 2].reshape(SIDE, -1)[:, 0]
    return sum(int(row[bit * _BAR + _BAR // 2] > 128) << bit for bit in range(_BITS))


@dataclass(frozen=True)
class Seen:
    """When the pictures of a file begin, which numbers they carry and when the last one ends; in seconds."""

    begins: list[Fraction]
    numbers: list[int]
    end: Fraction

    def at(self, time: Fraction) -> int:
        """The number that is shown at a time; before the first picture the first."""
        return self.numbers[max(0, bisect_right(self.begins, time) - 1)]


def seen(file: Path | bytes) -> Seen:
    """All pictures of a file."""
    begins, numbers, end = [], [], Fraction(0)
    with _opened(file) as container:
        zero = _start(container)
        for packet in container.demux(video=0):
            for frame in packet.decode():
                assert frame.pts is not None
                assert frame.time_base is not None
                begins.append(frame.pts * frame.time_base - zero)
                numbers.append(number(cast(Pixels, frame.to_ndarray(format="gray"))))
                end = begins[-1] + frame.duration * frame.time_base
    return Seen(begins, numbers, end)


def heard(file: Path | bytes) -> list[float]:
    """When the beeps of a file begin, in seconds."""
    onsets: list[float] = []
    last = -1.0
    with _opened(file) as container:
        zero = float(_start(container))
        for frame in container.decode(audio=0):
            assert frame.time is not None
            samples = frame.to_ndarray()[0]
            full = np.iinfo(np.int16).max if samples.dtype == np.int16 else 1
            for loud in np.flatnonzero(np.abs(samples) > 0.15 * full):
                time = frame.time - zero + float(loud) / frame.sample_rate
                if time - last > 0.5:
                    onsets.append(time)
                last = time
    return onsets


def _opened(file: Path | bytes) -> InputContainer:
    return av.open(io.BytesIO(file) if isinstance(file, bytes) else str(file), "r")


def _start(container: InputContainer) -> Fraction:
    return Fraction(container.start_time or 0, 1_000_000)
