"""Speak every sentence of the demo world once and pack the clips: `python -m demo.make_speech`.

Run by hand, only when demo/vocabulary.py or the voices change; what it writes into demo/speech/ is committed, so
nothing needs to be installed to make a demo video. Needs `flite` on PATH (Debian: apt-get install flite).
Both narrators are flite's voice `slt` (see demo/speech/LICENSE); Otto speaks lower and a little slower.

Word times come from the synthesiser itself: flite prints when each phone of a sentence ends, and the phones of every
word spoken alone tell which of them belong to which word.
"""

import difflib
import re
import subprocess
import tempfile
import wave
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from demo.speech import CLIPS, Clip, SpeechIndex
from demo.truth import Word
from demo.vocabulary import ACTIONS, NARRATORS, STEPS, all_sentences, split_step, step_sentences

VOICES: dict[str, list[str]] = {
    "Nora": ["-voice", "slt"],
    "Otto": ["-voice", "slt", "--setf", "int_f0_target_mean=118", "--setf", "duration_stretch=1.06"],
}
RATE_HZ = 16_000
BIT_RATE = 16_000
LEAD, TAIL, GAP = 0.05, 0.10, 0.15  # seconds of silence kept before and after a sentence, and put between two

Samples = npt.NDArray[np.int16]
Phones = list[tuple[str, float]]  # name and end in seconds


def parse_phones(printed: str) -> Phones:
    """The phones in what `flite -psdur` prints ("n:0.289 aw:0.448 ..."), pauses included."""
    return [(name, float(end)) for name, end in re.findall(r"(\w+):([\d.]+)", printed)]


def speak(text: str, narrator: str) -> tuple[Samples, Phones]:
    """Synthesise a sentence: samples at RATE_HZ and its phones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        command = ["flite", *VOICES[narrator], "-psdur", "-t", text, "-o", str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own text
        with wave.open(str(path)) as file:
            assert file.getframerate() == RATE_HZ
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    return samples, parse_phones(printed)


@cache
def phones_of_word(word: str) -> tuple[str, ...]:
    """The phones of a word spoken alone."""
    _, phones = speak(word, "Nora")
    return tuple(name for name, _ in phones if name != "pau")


def word_spans(
    text: str, phones: Phones, lexicon: Callable[[str], tuple[str, ...]] = phones_of_word
) -> list[tuple[float, float]]:
    """When each word of a sentence is spoken, by aligning the phones of its words with those of the sentence."""
    starts = [0.0, *(end for _, end in phones)]
    spoken = [(name, start, end) for (name, end), start in zip(phones, starts, strict=False) if name != "pau"]
    owners: list[int] = []
    expected: list[str] = []
    for index, token in enumerate(text.split()):
        names = lexicon(token.strip(".,?"))
        expected += names
        owners += [index] * len(names)
    owner_of = _align(expected, [name for name, _, _ in spoken])
    spans: dict[int, tuple[float, float]] = {}
    for (_, start, end), position in zip(spoken, owner_of, strict=True):
        word = owners[position]
        spans[word] = (min(start, spans.get(word, (start, end))[0]), end)
    assert len(spans) == len(text.split()), f"some word of {text!r} has no phone"
    return [spans[index] for index in range(len(spans))]


def _align(expected: list[str], spoken: list[str]) -> list[int]:
    """For each spoken phone the position of the expected phone it stands for (monotone)."""
    positions: list[int] = []
    matcher = difflib.SequenceMatcher(None, expected, spoken, autojunk=False)
    for _, i1, i2, j1, j2 in matcher.get_opcodes():
        for j in range(j1, j2):
            inside = i1 + (j - j1) * max(i2 - i1, 1) // (j2 - j1)
            positions.append(min(inside, len(expected) - 1))
    return positions


def groups() -> dict[str, list[str]]:
    """The sentences of each packed file: one for every action, one for everything that is not seen."""
    packed: dict[str, list[str]] = {action: [] for action in ACTIONS}
    for step in STEPS:
        packed[split_step(step)[0]] += step_sentences(step)
    told = {sentence for sentences in packed.values() for sentence in sentences}
    packed["unseen"] = [sentence for sentence in all_sentences() if sentence not in told]
    return packed


def pack(narrator: str, file: str, sentences: list[str]) -> tuple[Samples, list[Clip]]:
    """Speak sentences one after another; returns the samples and where each sentence and its words lie."""
    pieces: list[Samples] = []
    clips: list[Clip] = []
    at = 0.0
    for sentence in sentences:
        samples, phones = speak(sentence, narrator)
        spans = word_spans(sentence, phones)
        first, last = max(spans[0][0] - LEAD, 0.0), min(spans[-1][1] + TAIL, len(samples) / RATE_HZ)
        pieces += [samples[round(first * RATE_HZ) : round(last * RATE_HZ)], np.zeros(round(GAP * RATE_HZ), np.int16)]
        words = [
            Word(start=round(start - first, 3), end=round(end - first, 3), text=token)
            for (start, end), token in zip(spans, sentence.split(), strict=True)
        ]
        clips.append(Clip(narrator=narrator, text=sentence, file=file, start=round(at, 4), words=words,
                          end=round(at + len(pieces[-2]) / RATE_HZ, 4)))  # fmt: skip
        at += (len(pieces[-2]) + len(pieces[-1])) / RATE_HZ
    return np.concatenate(pieces), clips


def encode(samples: Samples, path: Path) -> None:
    """Write samples as Opus in an Ogg file."""
    with av.open(str(path), "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=RATE_HZ, layout="mono")
        stream.bit_rate = BIT_RATE
        stream.options = {"application": "voip", "vbr": "on"}
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE_HZ, Fraction(1, RATE_HZ), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    """Write all clips and their index into demo/speech/."""
    CLIPS.mkdir(exist_ok=True)
    clips: list[Clip] = []
    for narrator in NARRATORS:
        for group, sentences in groups().items():
            file = f"{narrator.lower()}-{group}.opus"
            samples, found = pack(narrator, file, sentences)
            encode(samples, CLIPS / file)
            clips += found
    (CLIPS / "index.json").write_text(SpeechIndex(clips=clips).model_dump_json() + "\n")


if __name__ == "__main__":
    main()
