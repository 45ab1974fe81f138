"""Sound of a clip, in step with its pictures: a waveform, or its log-mel spectrogram.

Both begin exactly where the frames begin. A log-mel spectrogram is defined as Whisper defines it (Radford et al.,
2022, arXiv:2212.04356), short of its last step, which scales by the loudest value of a clip:

    log10(max(F |STFT(x)|^2, 1e-10))

with a periodic Hann window over the whole of each transform, the waveform mirrored at its ends so that column j is
centred on sample j * hop, and F the triangular filters of Slaney's Auditory Toolbox (1998), evenly spaced in mel from
0 Hz to half the rate, each of area 1: linear below 1000 Hz, 15 mel, and from there 27 mel for each factor of 6.4.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from sayso.config import Settings

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer

_LEAD_SECONDS = 0.2
"""How far before its beginning decoding starts: a packet of AAC comes out right only behind its predecessor."""
_FLOOR = 1e-10
_LINEAR_HZ, _LINEAR_MEL, _LOG_STEP = 1000.0, 15.0, math.log(6.4) / 27


class SoundSettings(Settings):
    """What is taken of a clip's sound."""

    form: Literal["none", "waveform", "log_mel"] = Field("none", description="what a clip has of its sound")
    rate: int = Field(16000, ge=1000, description="samples a second, mono")
    seconds: float | None = Field(
        None, gt=0, description="from the first frame on; as long as the frames where not given"
    )
    mel_bins: int = Field(80, ge=1, description="filters of a log-mel spectrogram; Whisper has 80 or 128")
    mel_window: float = Field(0.025, gt=0, description="seconds of each transform of a log-mel spectrogram")
    mel_hop: float = Field(0.010, gt=0, description="seconds from column to column of a log-mel spectrogram")


def waveform(container: InputContainer, start: float, samples: int, rate: int) -> tuple[Tensor, Tensor]:
    """Sound from `start` (seconds of the clip) on -> float32 (samples,) in [-1, 1], and bool (samples,).

    The second is True where the clip has sound; elsewhere the first is 0.
    """
    wave = np.zeros(samples, dtype=np.float32)
    heard = np.zeros(samples, dtype=np.bool_)
    first = round(start * rate)
    for time, piece in _pieces(container, start, start + samples / rate, rate):
        begin = round(time * rate) - first
        inside = slice(max(begin, 0), max(begin + len(piece), 0))
        wave[inside] = piece[max(-begin, 0) : max(samples - begin, 0)]
        heard[inside] = True
    return torch.from_numpy(wave), torch.from_numpy(heard)


Wave = npt.NDArray[np.float32]


def _pieces(container: InputContainer, start: float, end: float, rate: int) -> list[tuple[float, Wave]]:
    """Pieces of mono sound at `rate` that cover [start, end) as far as there is any, each with its time."""
    from av.audio.resampler import AudioResampler

    if not container.streams.audio:
        return []
    stream = container.streams.audio[0]
    stream.codec_context.thread_count = 1
    assert stream.time_base is not None
    container.seek(round((start - _LEAD_SECONDS) / stream.time_base), stream=stream, backward=True)
    resampler = AudioResampler(format="fltp", layout="mono", rate=rate)
    pieces: list[AudioFrame] = []
    for frame in container.decode(stream):
        pieces += resampler.resample(frame)
        if frame.time is not None and frame.time >= end:
            break
    pieces += resampler.resample(None)
    return [(piece.time, piece.to_ndarray()[0]) for piece in pieces if piece.time is not None]


def log_mel(wave: Tensor, settings: SoundSettings) -> Tensor:
    """Float32 (samples,) -> float32 (mel_bins, samples // hop), a column each `mel_hop` seconds from the first on."""
    length, hop = lengths(settings)
    spectrum = torch.stft(wave, length, hop, window=torch.hann_window(length), return_complex=True)
    power = spectrum[:, : len(wave) // hop].abs().square()
    mel = mel_filters(settings.rate, length, settings.mel_bins) @ power
    return mel.clamp(min=_FLOOR).log10()


def lengths(settings: SoundSettings) -> tuple[int, int]:
    """Samples of a transform, and from one to the next."""
    return round(settings.mel_window * settings.rate), max(1, round(settings.mel_hop * settings.rate))


@cache
def mel_filters(rate: int, length: int, bins: int) -> Tensor:
    """Float32 (bins, length // 2 + 1): what each frequency of a transform adds to each filter."""
    hertz = np.fft.rfftfreq(length, 1 / rate)
    edges = _hertz(np.linspace(0.0, _mel(rate / 2), bins + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    filters = np.maximum(np.minimum(rising, falling), 0.0) * 2 / (high - low)
    return torch.from_numpy(filters.astype(np.float32))


def _mel(hertz: float) -> float:
    if hertz < _LINEAR_HZ:
        return hertz * _LINEAR_MEL / _LINEAR_HZ
    return _LINEAR_MEL + math.log(hertz / _LINEAR_HZ) / _LOG_STEP


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = _LINEAR_HZ * np.exp(_LOG_STEP * (mel - _LINEAR_MEL))
    return np.where(mel < _LINEAR_MEL, mel * _LINEAR_HZ / _LINEAR_MEL, above)
