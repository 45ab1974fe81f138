"""Sound against the beeps of its source, and its spectrogram against another implementation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from faster_whisper.feature_extractor import FeatureExtractor

from sayso.config import validate
from sayso.errors import ConfigError
from shards.clips import Clip, ClipSettings, make_clip
from shards.cut import Proxy
from shards.library import RawSample
from shards.sound import SoundSettings, log_mel

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

SMALL: dict[str, Any] = {"frames": 25, "size": 32}


def sample(data: bytes, start: float, end: float, *, clip_start: float, clip_end: float) -> RawSample:
    facts = {"video_id": "v", "start": start, "end": end, "clip_start": clip_start, "clip_end": clip_end}
    said = {"narration_id": "n", "start": start, "end": end, "text": "a beep"}
    return RawSample("key", {"mp4": data}, {**facts, "candidates": [said]})


def cut(proxy: Path, start: float, end: float) -> RawSample:
    with Proxy(proxy) as source:
        clip = source.cut(start, end)
    return sample(clip.data, start, end, clip_start=clip.start, clip_end=clip.end)


def taken(raw: RawSample, seed: str = "0", **sound: Any) -> Clip:
    return make_clip(raw, ClipSettings(**SMALL, sound=SoundSettings(**sound)), seed)


def onsets(wave: torch.Tensor, rate: int) -> list[float]:
    """When beeps begin: loud behind a twentieth of a second of quiet."""
    loud = np.flatnonzero(wave.abs().numpy() > 0.15) / rate
    return [float(time) for i, time in enumerate(loud) if i == 0 or time - loud[i - 1] > 0.05]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_beeps_are_heard_when_they_are_in_the_source(proxy: Path, rate: int) -> None:
    draw = random.Random(rate)
    for number in range(12):
        start = draw.uniform(0, 6.5)
        clip = taken(cut(proxy, start, start + 5), seed=f"{number}", form="waveform", rate=rate)
        wave = clip["waveform"]
        assert wave.shape == clip["sound_mask"].shape == (round(2.5 * rate),)
        assert wave.dtype == torch.float32
        assert clip["sound_mask"].all()
        heard = [clip["start"] + time for time in onsets(wave, rate)]
        assert len(heard) >= 2
        for time in heard:
            amid_a_beep = time < int(time) + 0.1 and time - clip["start"] < 0.001
            assert amid_a_beep or time == pytest.approx(round(time), abs=0.005)


def test_sound_is_the_same_wherever_a_clip_begins(proxy: Path) -> None:
    """Decoding from the middle of a stream gives what decoding all of it gives."""
    whole = taken(cut(proxy, 0, 12), form="waveform", seconds=12.0)
    assert whole["start"] <= 9.5
    full = make_clip(cut(proxy, 0, 12), ClipSettings(frames=120, size=32, sound=SoundSettings(form="waveform")), "0")
    for seed in range(6):
        part = taken(cut(proxy, 0, 12), seed=f"{seed}", form="waveform")
        first = round(part["start"] * 16000)
        torch.testing.assert_close(part["waveform"], full["waveform"][first : first + 40000], atol=2e-3, rtol=0)


def test_sound_lasts_as_long_as_asked_and_what_is_missing_is_masked(lab: Lab, proxy: Path, tmp_path: Path) -> None:
    clip = taken(cut(proxy, 8, 12), form="waveform", seconds=6.0)
    assert clip["waveform"].shape == (96000,)
    known = round((12 - clip["start"]) * 16000)
    assert clip["sound_mask"][: known - 100].all()
    assert not clip["sound_mask"][known + 2100 :].any()
    assert not clip["waveform"][~clip["sound_mask"]].any()
    lab.make_proxy(tmp_path / "silent.mp4", 4, audio=False)
    silent = taken(cut(tmp_path / "silent.mp4", 0, 4), form="waveform")
    assert silent["waveform"].shape == (40000,)
    assert not silent["waveform"].any()
    assert not silent["sound_mask"].any()


def test_there_is_no_sound_unless_it_is_asked_for(proxy: Path) -> None:
    clip = taken(cut(proxy, 0, 5))
    assert not {"waveform", "log_mel", "sound_mask"} & clip.keys()


@pytest.mark.parametrize("bins", [64, 80, 128])
def test_a_log_mel_spectrogram_is_whispers(proxy: Path, bins: int) -> None:
    raw = cut(proxy, 1, 6)
    wave = taken(raw, form="waveform")["waveform"]
    spectrogram = taken(raw, form="log_mel", mel_bins=bins)["log_mel"]
    assert spectrogram.shape == (bins, 250)
    assert spectrogram.dtype == torch.float32
    theirs = FeatureExtractor(feature_size=bins)(wave.numpy(), padding=0)
    scaled = (torch.maximum(spectrogram, spectrogram.max() - 8) + 4) / 4
    np.testing.assert_allclose(scaled.numpy(), theirs, atol=1e-4)


def test_columns_of_a_spectrogram_are_in_step(proxy: Path) -> None:
    for seed in range(5):
        clip = taken(cut(proxy, 2, 8), seed=f"{seed}", form="log_mel", mel_hop=0.005, mel_window=0.02)
        loud = clip["log_mel"].max(dim=0).values > -1
        assert clip["log_mel"].shape[1] == len(clip["sound_mask"]) == 500
        rises = [i for i in range(1, 500) if loud[i] and not loud[i - 1]]
        assert rises
        for column in rises:
            time = clip["start"] + column * 0.005
            assert time == pytest.approx(round(time), abs=0.02)


def test_a_tone_lies_in_the_filter_of_its_frequency() -> None:
    """At another rate too: the filter that a tone excites most is the one whose centre is nearest, in mel."""
    settings = SoundSettings(rate=8000, mel_bins=40)
    for hertz in (300.0, 900.0, 2500.0):
        wave = torch.sin(2 * torch.pi * hertz * torch.arange(8000) / 8000)
        mel = log_mel(wave, settings)[:, 50]
        top = 15 + np.log(4) / (np.log(6.4) / 27)  # 4000 Hz in mel
        place = hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)
        assert abs(int(mel.argmax()) - (place / top * 41 - 1)) < 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sound\.seconds 0\.01 is below sound\.mel_window, 0\.025"):
        validate(ClipSettings, {"sound": {"form": "log_mel", "seconds": 0.01}}, "recipe")
    for wrong in ({"area": [0.5, 0.2]}, {"area": [0.0, 1.0]}, {"aspect": [0, 1]}):
        with pytest.raises(ConfigError, match="rising"):
            validate(ClipSettings, wrong, "recipe")
