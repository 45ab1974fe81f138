"""The committed speech clips: every sentence a narrator can say, with its samples and true word times."""

from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from demo.truth import Word

CLIPS = Path(__file__).with_name("speech")
RATE_HZ = 24_000

Samples = npt.NDArray[np.float32]


class Clip(BaseModel):
    """A spoken sentence: where it lies in its packed file, and its words with times from the clip's start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    narrator: str
    text: str
    file: str
    start: float
    end: float
    words: list[Word]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start


class SpeechIndex(BaseModel):
    """All clips, as they lie in `speech/index.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: list[Clip]


@cache
def clips() -> dict[tuple[str, str], Clip]:
    """All clips by (narrator, sentence)."""
    index = SpeechIndex.model_validate_json((CLIPS / "index.json").read_bytes())
    return {(clip.narrator, clip.text): clip for clip in index.clips}


@cache
def _samples_of_file(file: str) -> Samples:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    with av.open(str(CLIPS / file)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def samples(narrator: str, text: str) -> Samples:
    """The samples of a sentence, float32 in [-1, 1] at RATE_HZ, shape (samples,)."""
    clip = clips()[narrator, text]
    return _samples_of_file(clip.file)[round(clip.start * RATE_HZ) : round(clip.end * RATE_HZ)]
