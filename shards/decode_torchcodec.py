"""Pictures of a clip at given times by torchcodec, an optional package that wants FFmpeg's shared libraries.

The same pictures as PyAV's (shards/decode.py), down to how edges are scaled; the two need not be mixed, but can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sayso.errors import ConfigError, CorruptObject
from shards.crop import Crop
from shards.decode import TOLERANCE_SECONDS, Pixels

_SHORTEST_SECONDS = 1e-6


def check_torchcodec() -> None:
    """ConfigError with the fix where torchcodec is not installed or finds no FFmpeg."""
    _decoder_class()


def decode_torchcodec(data: bytes, times: Sequence[float], crop: Crop) -> Pixels:
    """As shards.decode.decode: uint8 (len(times), size, size, 3); CorruptObject where it cannot be decoded."""
    decoder_class = _decoder_class()
    try:
        decoder = decoder_class(data, dimension_order="NHWC", num_ffmpeg_threads=1)
        first, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
        inside = [min(max(time + TOLERANCE_SECONDS, first), end - _SHORTEST_SECONDS) for time in times]
        frames: Tensor = decoder.get_frames_played_at(inside).data
    # torchcodec has no errors of its own: broken bytes and a missing stream are RuntimeError or ValueError.
    except (RuntimeError, ValueError) as error:
        raise CorruptObject(f"clip cannot be decoded ({str(error).splitlines()[0]})") from None
    pixels: Pixels = _cut(frames, crop).numpy()
    return pixels


def _decoder_class() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError:
        raise ConfigError(
            "decoder: torchcodec is not installed; `pip install torchcodec==0.13.0` fits torch 2.13, or take pyav"
        ) from None
    except RuntimeError:
        raise ConfigError(
            "decoder: torchcodec finds no FFmpeg; install its shared libraries, version 4 to 8 (Debian 12: "
            "`apt install libavdevice59 libavfilter8`), or take pyav"
        ) from None
    return VideoDecoder


def _cut(frames: Tensor, crop: Crop) -> Tensor:
    height, width = frames.shape[1:3]
    left, top, wide, high = crop.box(width, height).even(width, height)
    part = frames[:, top : top + high, left : left + wide]
    if crop.flip:
        part = part.flip(2)
    if (wide, high) != (crop.size, crop.size):
        scaled = interpolate(part.permute(0, 3, 1, 2), (crop.size, crop.size), mode="bilinear", antialias=True)
        part = scaled.permute(0, 2, 3, 1)
    return part.contiguous(memory_format=torch.contiguous_format)
