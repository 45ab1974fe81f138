"""Cut clips from a proxy by copying packets: nothing is decoded or encoded, and overlapping clips cost nothing.

A clip begins at the last key frame at or before its window (our proxies have one each second) and ends with the last
picture that the window needs. Its time 0 is that key frame; sound keeps its place to it. One packet of sound before
the beginning goes along, hidden by the edit list: AAC decodes right only behind its predecessor.
"""

from __future__ import annotations

import heapq
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from sayso.errors import CorruptObject

_Stream = VideoStream | AudioStream
_Packet: TypeAlias = "Packet[Any]"
_SOUND_LEAD_SECONDS = 0.2
"""How far before a clip to look for its first packets of sound; an AAC packet at 16 kHz lasts 64 ms."""


@dataclass(frozen=True)
class Clip:
    """An MP4 file in memory. Its time 0 is `start` of the source; its last picture ends at `end` (seconds)."""

    data: bytes
    start: float
    end: float


class Source(ABC):
    """A normalised video opened for cutting. Use as a context manager. Not for foreign files.

    Raises CorruptObject where the file is not what it is opened as, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self._container = av.open(str(path))
        except av.FFmpegError as error:
            raise CorruptObject(f"{self.name}: cannot be opened ({error.strerror})") from None
        with ExitStack() as closing:
            closing.callback(self._container.close)
            self._find()
            closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def cut(self, start: float, end: float) -> Clip:
        """The window [start, end), in seconds of the source. The same bytes each time.

        Raises CorruptObject where there is nothing in it or its packets cannot be read.
        """
        try:
            return self._cut(start, end)
        except av.FFmpegError as error:
            raise CorruptObject(f"{self.name}: cannot be cut at [{start}, {end}) ({error.strerror})") from None

    @abstractmethod
    def _find(self) -> None:
        """Find the streams; CorruptObject where they are not there."""

    @abstractmethod
    def _cut(self, start: float, end: float) -> Clip: ...


class Proxy(Source):
    """Picture and sound."""

    def _find(self) -> None:
        if not self._container.streams.video:
            raise CorruptObject(f"{self.name}: has no picture")
        self._video = self._container.streams.video[0]
        audio = self._container.streams.audio
        self._audio = audio[0] if audio else None

    def _cut(self, start: float, end: float) -> Clip:
        video = self._pictures(start, end)
        if not video:
            raise CorruptObject(f"{self.name}: no picture in [{start}, {end})")
        first = video[0]
        clip_start = _pts(first) * _base(self._video)
        clip_end = max(_pts(packet) + self._duration(packet) for packet in video) * _base(self._video)
        audio = self._sound(clip_start, clip_end)
        data = self._mux(video, audio, clip_start)
        return Clip(data, round(float(clip_start), 6), round(float(clip_end), 6))

    def _pictures(self, start: float, end: float) -> list[_Packet]:
        """Packets in decoding order from the last key frame at or before `start` to the last picture before `end`."""
        base = _base(self._video)
        first, last = round(start / base), round(end / base)
        back = 0.0
        while True:
            # The demuxer seeks by decoding times, which lie before presentation times where there are B-frames.
            target = max(start - back, 0.0)
            self._container.seek(round(target / base), stream=self._video, backward=True)
            packets = _from_key_frame(_packets(self._container, self._video), first, last)
            if target == 0.0 or (packets and _pts(packets[0]) <= first):
                return packets
            back = 2 * back + 1

    def _sound(self, start: Fraction, end: Fraction) -> list[_Packet]:
        """The packets that sound within [start, end), and the one before them."""
        if self._audio is None:
            return []
        return _sounding(self._container, self._audio, start, end)

    def _duration(self, packet: _Packet) -> int:
        if packet.duration:
            return packet.duration
        rate = self._video.average_rate or Fraction(1)
        return round(1 / rate / _base(self._video))

    def _mux(self, video: list[_Packet], audio: list[_Packet], zero: Fraction) -> bytes:
        streams: list[tuple[_Stream, list[_Packet]]] = [(self._video, video)]
        if self._audio is not None and audio:
            streams.append((self._audio, audio))
        return _written(streams, zero)


class SoundTrack(Source):
    """The sound alone, as M4A files.

    A clip begins with the packet that sounds at the window's start (its time 0 is that packet's) and ends with the one
    that sounds last before its end: a packet of AAC at 16 kHz lasts 64 ms. The packet before goes along, hidden by the
    edit list.
    """

    def _find(self) -> None:
        if not self._container.streams.audio:
            raise CorruptObject(f"{self.name}: has no sound")
        self._audio = self._container.streams.audio[0]

    def _cut(self, start: float, end: float) -> Clip:
        packets = _sounding(self._container, self._audio, Fraction(start), Fraction(end))
        base = _base(self._audio)
        inside = [packet for packet in packets if (_pts(packet) + (packet.duration or 0)) * base > start]
        if not inside:
            raise CorruptObject(f"{self.name}: no sound in [{start}, {end})")
        first, last = inside[0], inside[-1]
        clip_start, clip_end = _pts(first) * base, (_pts(last) + (last.duration or 0)) * base
        data = _written([(self._audio, packets)], clip_start)
        return Clip(data, round(float(clip_start), 6), round(float(clip_end), 6))


def _sounding(container: InputContainer, audio: AudioStream, start: Fraction, end: Fraction) -> list[_Packet]:
    """The packets that sound within [start, end), and the one before them."""
    base = _base(audio)
    # Whole numbers of the stream's clock, because comparing fractions for each packet takes longer than reading it.
    first, last = math.floor(start / base), math.ceil(end / base)
    container.seek(first - math.ceil(_SOUND_LEAD_SECONDS / base), stream=audio, backward=True)
    before: list[_Packet] = []
    inside: list[_Packet] = []
    for packet in _packets(container, audio):
        if _pts(packet) >= last:
            break
        sounding = _pts(packet) + (packet.duration or 0) > first
        (inside if sounding else before).append(packet)
    return [*before[-1:], *inside]


def _packets(container: InputContainer, stream: _Stream) -> Iterator[_Packet]:
    for packet in container.demux(stream):
        if packet.dts is None or packet.pts is None:
            return
        yield packet


def _written(streams: list[tuple[_Stream, list[_Packet]]], zero: Fraction) -> bytes:
    """An MP4 file of packets of these streams, whose time 0 is `zero` of the source."""
    # A file with a name, because moving the index to the front opens it again; in memory, because removing one
    # from a disk takes as long as writing the clip.
    with os.fdopen(os.memfd_create("clip"), "rb") as file:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        output = av.open(f"/proc/self/fd/{file.fileno()}", "w", format="mp4", options=options)
        with output:
            queues = [_shifted(packets, stream, output, zero) for stream, packets in streams]
            for _, _, packet in heapq.merge(*queues):
                output.mux(packet)
        return file.read()


def _shifted(
    packets: list[_Packet], stream: _Stream, output: OutputContainer, zero: Fraction
) -> list[tuple[float, int, _Packet]]:
    """Packets moved so that `zero` is time 0, given to a stream of the output; with the time to write them at."""
    target = output.add_stream_from_template(stream)
    base = _base(stream)
    offset = round(zero / base)
    queue: list[tuple[float, int, _Packet]] = []
    for packet in packets:
        assert packet.dts is not None
        packet.pts, packet.dts = _pts(packet) - offset, packet.dts - offset
        packet.stream = target
        # Not as a product with the fraction, which takes twenty times as long.
        queue.append((packet.dts * base.numerator / base.denominator, target.index * 1_000_000 + len(queue), packet))
    return queue


def _from_key_frame(packets: Iterator[_Packet], first: int, last: int) -> list[_Packet]:
    """From packets in decoding order those from the last key frame at or before `first` to pictures before `last`.

    Pictures that are needed only because others refer to them stay in, and then also those shown between: the clip
    has no gaps. Pictures decoded behind its key frame but shown before it (open groups) are left out.
    """
    taken: list[_Packet] = []
    waiting: list[_Packet] = []
    for packet in packets:
        assert packet.dts is not None
        if taken and packet.dts >= last:
            break
        if packet.is_keyframe and (not taken or _pts(packet) <= first):
            taken, waiting = [packet], []
            last = max(last, _pts(packet) + 1)
        elif taken and _pts(packet) >= _pts(taken[0]):
            waiting.append(packet)
            if _pts(packet) < last:
                taken += waiting
                last = max(last, *(_pts(each) + 1 for each in waiting))
                waiting = []
    return taken


def _pts(packet: _Packet) -> int:
    assert packet.pts is not None
    return packet.pts


def _base(stream: _Stream) -> Fraction:
    assert stream.time_base is not None
    return stream.time_base
