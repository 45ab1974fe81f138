"""What makes a sentence useless as a narration. A filter is a small function: None, or the reason to drop.

The order of FILTERS is the order of the reasons: the first that speaks is counted. Figures behind the defaults are
those of Whisper's own decoder (compression 2.4, no-speech 0.6, mean log-probability -1) and, where said, of a trial
with tiny.en, int8, greedy, on seven real videos (docs/alignment.md).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field

from align.sentences import Sentence
from align.text import words_in
from sayso.config import Settings

Reason = str


class QualitySettings(Settings):
    """When a sentence is dropped."""

    fewest_words: int = Field(default=2, ge=0, description="too_short: fewer words than this")
    fewest_letters: int = Field(default=4, ge=0, description="too_short: fewer letters and digits than this")
    most_seconds: float = Field(default=30.0, gt=0, description="too_long: lasts longer than this many seconds")
    most_characters_per_second: float = Field(
        default=40.0, gt=0, description="too_fast: nobody speaks more characters a second"
    )
    fewest_characters_per_second: float = Field(
        default=1.0, ge=0, description="too_slow: the times cannot be true below this many characters a second"
    )
    loop_unique_words: float = Field(
        default=0.4, ge=0, le=1, description="loop: at most this share of the words are different ones"
    )
    loop_words: int = Field(default=6, ge=2, description="loop: the share is looked at from this many words on")
    loop_compression: float = Field(
        default=2.4, gt=1, description="loop: the text, or the segment it is from, compresses better than this"
    )
    loop_in_a_row: int = Field(default=3, ge=2, description="loop: the same sentence this many times in a row")
    lowest_confidence: float = Field(
        default=0.5, ge=0, le=1, description="low_confidence: mean probability of the words below this"
    )
    no_speech: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="no_speech: probability of silence above this, if the words are also unsure",
    )
    no_speech_confidence: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="no_speech: what counts as unsure: mean probability of the words below this",
    )
    invented_confidence: float = Field(
        default=0.9, ge=0, le=1, description="invented: a known phrase stays from this mean probability on"
    )
    invented_phrases: tuple[str, ...] = Field(
        default=(
            "thank you",
            "thank you very much",
            "thank you so much",
            "thanks for watching",
            "thank you for watching",
            "thanks for listening",
            "thank you for listening",
            "please subscribe",
            "please subscribe to my channel",
            "like and subscribe",
            "don't forget to subscribe",
            "see you next time",
            "see you in the next video",
            "i'll see you in the next video",
            "bye",
            "bye bye",
            "you",
            "subtitles by the amara.org community",
            "transcribed by otter.ai",
        ),
        description="invented: what Whisper writes over silence and music; a sentence of nothing else is dropped",
    )
    still_share: float = Field(
        default=0.95, ge=0, le=1, description="still_picture: one picture stands for this share of the video"
    )
    outside_seconds: float = Field(
        default=1.0, ge=0, description="outside: begins after the video's end, or ends this many seconds after it"
    )
    junk_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="low_confidence, whole transcript: this share of its words are loops, invented or unsure",
    )


@dataclass(frozen=True)
class Context:
    """What a filter may know beside the sentence: the settings and the facts of its video."""

    settings: QualitySettings
    duration: float = math.inf
    still_share: float = 0.0


Filter = Callable[[Sentence, Context], Reason | None]


def sound(sentence: Sentence, context: Context) -> Reason | None:
    """Not speech: "[Applause]", and "music" where there is music or singing."""
    if not sentence.sound:
        return None
    return "music" if any(sign in sentence.text.lower() for sign in ("♪", "♫", "♬", "music")) else "sound"


def outside(sentence: Sentence, context: Context) -> Reason | None:
    """Said when the video is over: the times belong to another cut."""
    late = sentence.start >= context.duration
    return "outside" if late or sentence.end > context.duration + context.settings.outside_seconds else None


def loop(sentence: Sentence, context: Context) -> Reason | None:
    """The decoder went round in a circle, often with high confidence."""
    settings, words = context.settings, words_in(sentence.text)
    repeated = len(words) >= settings.loop_words and len(set(words)) <= settings.loop_unique_words * len(words)
    squeezed = max(compression(sentence.text), sentence.compression or 0.0) > settings.loop_compression
    return "loop" if repeated or squeezed or sentence.said_in_a_row >= settings.loop_in_a_row else None


def invented(sentence: Sentence, context: Context) -> Reason | None:
    """A phrase that Whisper is known to write where nothing is said. Text without confidences was not decoded."""
    if sentence.confidence is None or sentence.confidence >= context.settings.invented_confidence:
        return None
    words = words_in(sentence.text)
    known = any(words_in(phrase) == words for phrase in context.settings.invented_phrases)
    return "invented" if known else None


def no_speech(sentence: Sentence, context: Context) -> Reason | None:
    """The model thinks that nothing is said here, and its words are unsure."""
    settings = context.settings
    if sentence.no_speech is None or sentence.no_speech <= settings.no_speech:
        return None
    unsure = sentence.confidence is None or sentence.confidence < settings.no_speech_confidence
    return "no_speech" if unsure else None


def low_confidence(sentence: Sentence, context: Context) -> Reason | None:
    """The words are unsure."""
    if sentence.confidence is None or sentence.confidence >= context.settings.lowest_confidence:
        return None
    return "low_confidence"


def too_short(sentence: Sentence, context: Context) -> Reason | None:
    """Too few words or letters to describe anything."""
    settings = context.settings
    letters = sum(character.isalnum() for character in sentence.text)
    short = len(words_in(sentence.text)) < settings.fewest_words or letters < settings.fewest_letters
    return "too_short" if short else None


def too_long(sentence: Sentence, context: Context) -> Reason | None:
    """Lasts too long to say when something is seen."""
    return "too_long" if sentence.end - sentence.start > context.settings.most_seconds else None


def too_fast(sentence: Sentence, context: Context) -> Reason | None:
    """More characters a second than anybody speaks."""
    spoken = sentence.end - sentence.start
    return "too_fast" if len(sentence.text) > context.settings.most_characters_per_second * spoken else None


def too_slow(sentence: Sentence, context: Context) -> Reason | None:
    """So few characters a second that the times cannot be those of the words."""
    spoken = sentence.end - sentence.start
    return "too_slow" if len(sentence.text) < context.settings.fewest_characters_per_second * spoken else None


def still_picture(sentence: Sentence, context: Context) -> Reason | None:
    """The video shows one picture all the time: nothing said can be seen to happen."""
    still = context.still_share > 0 and context.still_share >= context.settings.still_share
    return "still_picture" if still else None


JUNK: tuple[Filter, ...] = (loop, invented, no_speech, low_confidence)
FILTERS: tuple[Filter, ...] = (sound, outside, *JUNK, too_short, too_long, too_fast, too_slow, still_picture)


def judge(sentence: Sentence, context: Context, filters: Sequence[Filter] = FILTERS) -> Reason:
    """The reason to drop a sentence, "" to keep it."""
    return next((reason for each in filters if (reason := each(sentence, context))), "")


def is_junk(speech: Sequence[Sentence], context: Context) -> bool:
    """Whether so many of a transcript's words are junk that the rest cannot be trusted either."""
    counts = [(len(words_in(each.text)), bool(judge(each, context, JUNK))) for each in speech if not each.sound]
    total = sum(words for words, _ in counts)
    return total > 0 and sum(words for words, junk in counts if junk) >= context.settings.junk_share * total


def compression(text: str) -> float:
    """Whisper's measure of repetition: bytes of a text for a byte of its zlib form."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))
