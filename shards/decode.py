"""Pictures of a clip at given times, cut and scaled, by PyAV. Always by presentation time, never by frame number.

packets of the clip -> which of them are shown at the times -> only what those need is decoded
-> the part that is seen is cut out, scaled and converted, in this order: what is not seen costs nothing
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sayso.errors import CorruptObject
from shards.crop import Crop

Pixels = npt.NDArray[np.uint8]
_Packet: TypeAlias = "Packet[Any]"
TOLERANCE_SECONDS = 0.001
"""A picture that begins this little after a time is the one shown then: times come out of float arithmetic."""


def decode(data: bytes, times: Sequence[float], crop: Crop) -> Pixels:
    """The pictures shown at `times` (rising, seconds of the clip) -> uint8 (len(times), size, size, 3), RGB.

    Before the first picture the first is given, after the last the last. Raises CorruptObject where there is none
    or the clip cannot be decoded.
    """
    out = np.empty((len(times), crop.size, crop.size, 3), dtype=np.uint8)
    done = 0
    cutter: Cutter | None = None
    with opened(data) as container:
        for frame, count in _shown(container, times):
            cutter = cutter or Cutter(frame, crop)
            out[done].reshape(crop.size, 3 * crop.size)[:] = cutter(frame)
            out[done + 1 : done + count] = out[done]
            done += count
    if done < len(times):
        raise CorruptObject("clip has no picture")
    return out


@contextmanager
def opened(data: bytes) -> Iterator[InputContainer]:
    """A clip opened for reading; what cannot be read of it is a CorruptObject."""
    try:
        with av.open(io.BytesIO(data), "r") as container:
            yield container
    except av.FFmpegError as error:
        raise CorruptObject(f"clip cannot be decoded ({error.strerror})") from None


class Cutter:
    """Cuts the same part out of each picture of a film and makes RGB of it.

    Cutting and mirroring first, in the film's own colours, takes half the time of doing so with whole RGB pictures.
    """

    def __init__(self, frame: VideoFrame, crop: Crop) -> None:
        self._row_bytes = 3 * crop.size
        left, top, width, height = crop.box(frame.width, frame.height).even(frame.width, frame.height)
        size = f"{frame.width}x{frame.height}"
        form = f"pix_fmt={frame.format.name}:colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
        steps = [
            ("buffer", f"video_size={size}:{form}:time_base=1/1000"),
            ("crop", f"{width}:{height}:{left}:{top}"),
            *([("hflip", None)] if crop.flip else []),
            ("scale", f"{crop.size}:{crop.size}:flags=bilinear"),
            ("format", "rgb24"),
            ("buffersink", None),
        ]
        self._graph = av.filter.Graph()
        # One thread a clip: loaders run a process a core.
        self._graph.threads = 1
        self._graph.link_nodes(*(self._graph.add(name, options) for name, options in steps)).configure()

    def __call__(self, frame: VideoFrame) -> Pixels:
        """A picture -> its rows, uint8 (size, size * 3)."""
        self._graph.vpush(frame)
        (plane,) = self._graph.vpull().planes
        rows: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        return rows[:, : self._row_bytes]


def _shown(container: InputContainer, times: Sequence[float]) -> Iterator[tuple[VideoFrame, int]]:
    """Each picture that is shown at any of the times, and at how many of them."""
    if not container.streams.video:
        raise CorruptObject("clip has no picture")
    stream = container.streams.video[0]
    codec = stream.codec_context
    codec.thread_count = 1
    assert stream.time_base is not None
    ticks = [math.floor((time + TOLERANCE_SECONDS) / stream.time_base) for time in times]
    packets = _packets(container, stream, ticks[0], ticks[-1])
    wanted = _wanted(packets, ticks)
    for stretch in _needed(packets, wanted):
        for packet in (*stretch, None):
            for frame in codec.decode(packet):
                if frame.pts is not None and frame.pts in wanted:
                    yield frame, wanted[frame.pts]
        codec.flush_buffers()


def _packets(container: InputContainer, stream: VideoStream, first: int, last: int) -> list[_Packet]:
    """In decoding order, from the last key frame shown at or before `first` to what is shown at `last` (ticks)."""
    assert stream.time_base is not None
    back = round(1 / stream.time_base)
    target = max(first, 0)
    while True:
        container.seek(target, stream=stream, backward=True)
        packets: list[_Packet] = []
        for packet in container.demux(stream):
            if packet.dts is None or packet.pts is None or (packets and packet.dts > last):
                break
            packets.append(packet)
        # The demuxer seeks by decoding times; with B-frames it can land on a key frame that is shown too late.
        if target == 0 or (packets and _pts(packets[0]) <= first):
            return packets
        target, back = max(target - back, 0), 2 * back


def _wanted(packets: Sequence[_Packet], ticks: Sequence[int]) -> Counter[int]:
    """When the pictures begin that are shown at the given ticks, and at how many of them each is shown."""
    begins = np.array(sorted(_pts(packet) for packet in packets if not packet.is_discard), dtype=np.int64)
    if not len(begins):
        return Counter()
    shown = begins[np.maximum(np.searchsorted(begins, ticks, side="right") - 1, 0)]
    return Counter(shown.tolist())


def _needed(packets: Sequence[_Packet], wanted: Counter[int]) -> Iterator[list[_Packet]]:
    """Stretches of packets, each from a key frame on, that give all pictures wanted: the rest is never decoded."""
    stretch: list[_Packet] = []
    groups = list(_groups(packets))
    for group, following in zip(groups, [*groups[1:], []], strict=True):
        places = [place for place, packet in enumerate(group) if packet.pts in wanted]
        if any(_pts(packet) < _pts(following[0]) and packet.pts in wanted for packet in following):
            places = [len(group) - 1]  # pictures of the next group that refer to this one (open groups)
        end = places[-1] + 1 if places else 0
        stretch += group[:end]
        if stretch and end < len(group):
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _groups(packets: Sequence[_Packet]) -> Iterator[list[_Packet]]:
    """Packets from key frame to key frame."""
    group: list[_Packet] = []
    for packet in packets:
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
    if group:
        yield group


def _pts(packet: _Packet) -> int:
    assert packet.pts is not None
    return packet.pts
