"""The stage transcribe: speech of a proxy to words with times, through faster-whisper.

Where somebody speaks is found first (Silero VAD), and only that is read, packed into windows of at most the 30 s that
Whisper sees at once. No window ends inside a word, which else costs whole sentences. Decoding is a beam search at
temperature 0 without the text before it as a hint: the same sound gives the same rows, and no loop outlives a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel, decode_audio
from faster_whisper.transcribe import restore_speech_timestamps
from faster_whisper.vad import VadOptions, get_speech_timestamps
from pydantic import Field
from threadpoolctl import threadpool_limits

from ingest.models import find_speech_model
from sayso.config import Settings
from sayso.errors import Skip
from sayso.root import Root
from sayso.rows import Media, Span, Transcript, Word
from sayso.stage import Resources, Stage

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment

RATE = 16000

Sound: TypeAlias = npt.NDArray[np.float32]
Chunk: TypeAlias = dict[str, int]  # {"start": sample, "end": sample}


class TranscribeSettings(Settings):
    """Which model reads the speech, and how."""

    model: str = Field("tiny.en", description="a folder, an installed package, a short name or a name on the hub")
    language: str | None = Field(None, description="a language's code; detected where a multilingual model has none")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="cuda asks for a GPU a worker; auto is cuda where the machine that begins the run has one"
    )
    beam_size: int = Field(5, ge=1, description="hypotheses kept while decoding; fewer are faster and less right")
    min_speech: float = Field(1.0, ge=0, description="fewer seconds of speech than this are dropped as no_speech")
    vad_threshold: float = Field(0.5, gt=0, lt=1, description="probability from which Silero hears speech")
    vad_silence: float = Field(0.5, gt=0, description="seconds of silence that part two stretches of speech")
    vad_padding: float = Field(0.25, ge=0, description="seconds kept on both sides of a stretch of speech")
    window: float = Field(28.0, ge=5, le=30, description="seconds of speech, at most, that are read at once")
    language_windows: int = Field(5, ge=1, description="windows that vote on the language")
    offline: bool = Field(False, description="never ask the hub for a model")
    seconds_at_least: float = Field(300.0, gt=0, description="wall-clock seconds that any row may take")
    seconds_per_second: float = Field(4.0, gt=0, description="further wall-clock seconds for each second of video")


class Transcribe(Stage[Media, Transcript]):
    """Reads the sound of each proxy."""

    name: ClassVar[str] = "transcribe"
    reads = Media
    writes = Transcript

    def __init__(self, root: Root, settings: TranscribeSettings) -> None:
        super().__init__(root)
        self.settings = settings
        # Settled here, where the run begins: workers that took CUDA without having asked the cluster for a GPU would
        # all share the first one of their machine.
        self.device = _device(settings.device)
        self.resources = Resources(cpus=1.0, gpus=1.0 if self.device == "cuda" else 0.0)
        self.model_name = find_speech_model(settings.model, offline=settings.offline).name

    def time_limit(self, row: Media) -> float:
        """Grows with the duration."""
        return self.settings.seconds_at_least + self.settings.seconds_per_second * row.duration

    def video_seconds(self, row: Media, made: Sequence[Transcript]) -> float:
        """The proxy's duration."""
        return row.duration

    def open(self) -> None:
        """Load the model."""
        self.listener = Listener(self.settings.model_copy(update={"device": self.device}))

    def __call__(self, row: Media) -> Sequence[Transcript]:
        """One transcript; Skip("no_audio") or Skip("no_speech") where there is nothing to read."""
        if not row.audio:
            raise Skip("no_audio", "the video has no sound")
        with self.root.storage.local(row.key) as proxy:
            sound = decode_audio(str(proxy), sampling_rate=RATE)
        return [self.listener.listen(sound, row.video_id)]


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if ctranslate2.get_cuda_device_count() else "cpu"


class Listener:
    """A loaded model; usable without a root or an engine."""

    def __init__(self, settings: TranscribeSettings) -> None:
        self.settings = settings
        found = find_speech_model(settings.model, offline=settings.offline)
        device = _device(settings.device)
        self.source = f"asr:{found.name}"
        self.whisper = WhisperModel(
            str(found.folder),
            device=device,
            compute_type="float16" if device == "cuda" else "int8",
            cpu_threads=1,
            num_workers=1,
        )

    def listen(self, sound: Sound, video_id: str) -> Transcript:
        """What is said in `sound` (mono samples in [-1, 1] at 16 kHz); Skip("no_speech") where nothing is."""
        # Matrix products on several threads add up in another order: the same sound would give other words on
        # another number of cores, or in a worker than in the terminal.
        with threadpool_limits(1, user_api="blas"):
            return self._listen(sound, video_id)

    def _listen(self, sound: Sound, video_id: str) -> Transcript:
        chunks = self._speech(sound)
        seconds = sum(chunk["end"] - chunk["start"] for chunk in chunks) / RATE
        seconds = max(0.0, seconds - 2 * self.settings.vad_padding * len(chunks))
        if not chunks or seconds < self.settings.min_speech:
            raise Skip("no_speech", f"{seconds:.1f} s of speech; at least {self.settings.min_speech:.1f} s are wanted")
        windows = list(pack(chunks, int(self.settings.window * RATE)))
        language, confidence = self._language(sound, windows)
        segments = (segment for window in windows for segment in self._read(sound, window, language))
        spans = [span for segment in segments if (span := to_span(segment))]
        if not spans:
            raise Skip("no_speech", "the model reads no words in what sounds like speech")
        return Transcript(
            video_id=video_id,
            source=self.source,
            language=language,
            language_confidence=confidence,
            speech_seconds=round(seconds, 3),
            spans=spans,
        )

    def _speech(self, sound: Sound) -> list[Chunk]:
        """Where somebody speaks."""
        options = VadOptions(
            threshold=self.settings.vad_threshold,
            max_speech_duration_s=self.settings.window,
            min_silence_duration_ms=round(self.settings.vad_silence * 1000),
            speech_pad_ms=round(self.settings.vad_padding * 1000),
        )
        found: list[Chunk] = get_speech_timestamps(sound, options)
        return found

    def _language(self, sound: Sound, windows: Sequence[list[Chunk]]) -> tuple[str, float | None]:
        """The language and its probability, a mean over windows from beginning to end.

        A model of English only cannot tell; it says "en", without a probability.
        """
        if not self.whisper.model.is_multilingual:
            return "en", None
        if self.settings.language:
            return self.settings.language, None
        ballots = [
            self.whisper.detect_language(joined(sound, window))[2]
            for window in spread(windows, self.settings.language_windows)
        ]
        return vote(ballots)

    def _read(self, sound: Sound, window: Sequence[Chunk], language: str) -> Iterator[Segment]:
        segments, _ = self.whisper.transcribe(
            joined(sound, window),
            language=language,
            beam_size=self.settings.beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,
        )
        restored: Iterator[Segment] = restore_speech_timestamps(segments, list(window), RATE)
        return restored


def joined(sound: Sound, chunks: Sequence[Chunk]) -> Sound:
    """The samples of all chunks, one after the other."""
    return np.concatenate([sound[chunk["start"] : chunk["end"]] for chunk in chunks])


def pack(chunks: Sequence[Chunk], most: int) -> Iterator[list[Chunk]]:
    """Windows: runs of chunks of at most `most` samples together, or of one chunk that is longer."""
    window: list[Chunk] = []
    samples = 0
    for chunk in chunks:
        length = chunk["end"] - chunk["start"]
        if window and samples + length > most:
            yield window
            window, samples = [], 0
        window.append(chunk)
        samples += length
    if window:
        yield window


def spread(windows: Sequence[list[Chunk]], most: int) -> list[list[Chunk]]:
    """At most `most` of the windows, evenly from the first to the last."""
    places = sorted({round(place) for place in np.linspace(0, len(windows) - 1, most)})
    return [windows[place] for place in places]


def vote(ballots: Sequence[Sequence[tuple[str, float]]]) -> tuple[str, float]:
    """The language with the highest mean probability over all windows, and that mean.

    ballots: for each window, pairs of a language and its probability; a language that is not named has none.
    """
    votes: dict[str, float] = {}
    for ballot in ballots:
        for language, probability in ballot:
            votes[language] = votes.get(language, 0.0) + probability / len(ballots)
    best = max(votes, key=lambda language: votes[language])
    return best, round(votes[best], 4)


def to_span(segment: Segment) -> Span | None:
    """A segment as a span, bounded by its words; None where it has none."""
    words = [_word(word) for word in segment.words or () if word.word.strip()]
    if not words:
        return None
    return Span(
        start=words[0].start,
        end=max(word.end for word in words),
        text=segment.text.strip(),
        words=words,
        # The mean over its own words: the model's avg_logprob is one figure for all spans of a 30-second window.
        confidence=round(sum(word.confidence or 0.0 for word in words) / len(words), 4),
        no_speech=round(segment.no_speech_prob, 4),
        compression=round(segment.compression_ratio, 4),
    )


def _word(word: Any) -> Word:
    start = round(float(word.start), 3)
    return Word(
        start=start,
        end=max(start, round(float(word.end), 3)),
        text=word.word.strip(),
        confidence=round(float(word.probability), 4),
    )
