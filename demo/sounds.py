"""The sound track of a video: the narrator's sentences and the sound of every action, each with its own timbre."""

from functools import cache

import numpy as np

from demo.look import look_of
from demo.motion import RING, strike_times
from demo.speech import RATE_HZ, Samples, samples
from demo.truth import Seen, VideoTruth

SPEECH_GAIN = 0.75
ACTION_GAIN = 0.11
ROOM_GAIN = 0.0006


def sound_track(truth: VideoTruth) -> Samples:
    """The whole sound of a video, float32 in [-1, 1] at RATE_HZ, shape (samples,)."""
    track = ROOM_GAIN * _noise(round(truth.duration * RATE_HZ), 80, 4000, "room")
    track += action_track(truth)
    for said in truth.said:
        _add(track, SPEECH_GAIN * samples(truth.narrator, said.text), said.start)
    return np.asarray(np.clip(track, -1, 1), np.float32)


def action_track(truth: VideoTruth) -> Samples:
    """Only the sounds of what is done, as they lie in the sound track."""
    track = np.zeros(round(truth.duration * RATE_HZ), np.float32)
    pace = look_of(truth.id).pace
    for seen in truth.seen:
        if seen.action == "pour":
            _add(track, ACTION_GAIN * _stream(seen), seen.start)
            continue
        for time in strike_times(seen, pace):
            room = round((seen.end - time) * RATE_HZ)
            _add(track, ACTION_GAIN * strike(seen.action)[: max(room, 0)], time)
    return track


def _add(track: Samples, piece: Samples, start: float) -> None:
    first = round(start * RATE_HZ)
    piece = piece[: max(len(track) - first, 0)]
    track[first : first + len(piece)] += piece


def _noise(count: int, low_hz: float, high_hz: float, name: str) -> Samples:
    """Noise of one band with an RMS of 1, the same for the same name."""
    spectrum = np.fft.rfft(np.random.default_rng(list(name.encode())).standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    spectrum[(hertz < low_hz) | (hertz > high_hz)] = 0
    wave = np.fft.irfft(spectrum, count)
    loudness = max(float(np.sqrt(np.mean(wave**2))), 1e-9)
    return np.asarray(wave / loudness, np.float32)


def _clock(seconds: float) -> Samples:
    return np.asarray(np.arange(round(seconds * RATE_HZ)) / RATE_HZ, np.float32)


def _tone(clock: Samples, hertz: float, decay: float) -> Samples:
    return np.asarray(np.sin(2 * np.pi * hertz * clock) * np.exp(-decay * clock), np.float32)


def _hush(clock: Samples) -> Samples:
    """A swell that rises and falls once."""
    return np.asarray(np.sin(np.pi * clock / clock[-1]) ** 2, np.float32)


@cache
def strike(action: str) -> Samples:
    """The sound of one strike of an action, about 1 at its loudest."""
    clock = _clock(RING[action])
    count = len(clock)

    def noise(low_hz: float, high_hz: float) -> Samples:
        return _noise(count, low_hz, high_hz, action)

    decay = np.exp(-45 * clock)
    buzz = (0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 38 * clock))).astype(np.float32)
    made: dict[str, Samples] = {
        "cut": noise(1500, 9000) * decay * 0.7 + _tone(clock, 210, 40),
        "peel": noise(4500, 10000) * np.linspace(0.2, 1, count, dtype=np.float32) * _hush(clock),
        "wash": noise(600, 3500) * _hush(clock) * (0.6 + 0.4 * np.sin(2 * np.pi * 17 * clock)),
        "stir": noise(300, 900) * _hush(clock) * 0.7 + 0.6 * _tone(clock, 1250, 18),
        "fold": noise(2500, 7000) * _hush(clock) * (0.4 + 0.6 * buzz),
        "roll": noise(60, 260) * _hush(clock) * 1.4,
        "press": _tone(clock, 72, 9) * 1.2 + noise(5000, 11000) * _hush(clock) * 0.35,
        "hammer": _tone(clock, 1900, 24) + 0.7 * _tone(clock, 3170, 30) + noise(200, 2000) * np.exp(-80 * clock),
        "tighten": noise(2500, 6000) * np.exp(-90 * clock) + 0.6 * _tone(clock, 3600, 70),
        "paint": noise(900, 2400) * _hush(clock) * 0.8,
        "shake": noise(3000, 8000) * np.exp(-22 * clock) * (0.3 + 0.7 * buzz),
    }
    return np.asarray(made[action], np.float32)


def _stream(seen: Seen) -> Samples:
    """A falling stream: a hiss with bubbles that go up as the bowl fills."""
    clock = _clock(seen.end - seen.start)
    rising = 320 + 380 * clock / clock[-1]
    bubbles = np.sin(2 * np.pi * np.cumsum(rising * (1 + 0.25 * np.sin(2 * np.pi * 7.3 * clock))) / RATE_HZ)
    bubbles *= np.clip(np.sin(2 * np.pi * 11.7 * clock), 0, 1)
    edge = np.clip(np.minimum(clock, clock[-1] - clock) / 0.1, 0, 1)
    return np.asarray((0.55 * _noise(len(clock), 700, 5000, "pour") + 0.8 * bubbles) * edge, np.float32)
