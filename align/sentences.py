"""Words with times to sentences with times.

    spans -> words (interpolated where untimed) -> runs (cut at pauses, speakers, sentence ends) -> pieces short enough

A sentence begins with its first word and ends with its last. Sounds become sentences of their own, so that each can
be counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from align.text import join_words, split_words, words_in
from sayso.config import Settings
from sayso.rows import Span, Word

_ENDS_SENTENCE = re.compile(r"(?:[.!?…]+[\"'”’)\]]*|[。！？]+[」』）]*)$")
# Titles and the like, and initials: what follows begins with a capital and is still the same sentence.
_SHORTENED = re.compile(r"(?:[A-Za-z]\.)+|(?:mr|mrs|ms|dr|prof|jr|sr|vs|approx|vol|fig|e\.g|i\.e)\.", re.IGNORECASE)


class SentenceSettings(Settings):
    """Where words are cut into sentences."""

    longest_gap: float = Field(default=1.0, gt=0, description="seconds of silence above which a sentence ends")
    overlap: float = Field(
        default=0.2, ge=0, description="seconds; cues that overlap by more belong to different sentences"
    )
    words: int = Field(default=16, ge=2, description="words above which text without punctuation is cut")
    seconds: float = Field(default=8.0, gt=0, description="seconds above which text without punctuation is cut")
    punctuated_words: int = Field(default=48, ge=2, description="words above which a punctuated sentence is cut")
    punctuated_seconds: float = Field(
        default=20.0, gt=0, description="seconds above which a punctuated sentence is cut"
    )


@dataclass(frozen=True)
class Sentence:
    """A sentence, with what its source says of its words; each figure is the mean over the words that have it."""

    start: float
    end: float
    text: str
    sound: bool = False
    confidence: float | None = None
    no_speech: float | None = None
    compression: float | None = None
    said_in_a_row: int = 1


@dataclass(frozen=True)
class _Said:
    """A word and the span it was taken from. `glued` words have no space before them: "0" and ".3"."""

    word: Word
    span: Span
    first: bool
    glued: bool


def sentences(spans: Iterable[Span], settings: SentenceSettings) -> list[Sentence]:
    """The sentences of a track, by start. The order of `spans` does not matter; scene descriptions are left out."""
    ordered = sorted(spans, key=_reading_order)
    said = _said(span for span in ordered if span.kind == "speech")
    speech = [_sentence(piece) for run in _runs(said, settings) for piece in _short_enough(run, settings)]
    sounds = [Sentence(span.start, span.end, span.text, sound=True) for span in ordered if span.kind == "sound"]
    return sorted([*_counted_in_a_row(speech), *sounds], key=lambda each: (each.start, each.end, each.text))


def timed_words(span: Span) -> list[Word]:
    """The words of a span; those without times share its time by their letters."""
    if span.words:
        return [word for word in span.words if word.text.strip()]
    texts = split_words(span.text)
    letters = sum(len(text) for text in texts)
    words, before = [], 0
    for text in texts:
        after = before + len(text)
        start = span.start + (span.end - span.start) * before / letters
        end = span.end if after == letters else span.start + (span.end - span.start) * after / letters
        words.append(Word(start=start, end=end, text=text, confidence=span.confidence))
        before = after
    return words


def _reading_order(span: Span) -> tuple[float, float, str, str]:
    return span.start, span.end, span.text, span.model_dump_json()


def _said(spans: Iterable[Span]) -> Iterator[_Said]:
    for span in spans:
        position = 0
        for place, word in enumerate(timed_words(span)):
            found = span.text.find(word.text.strip(), position)
            glued = place > 0 and found > 0 and not span.text[found - 1].isspace()
            position = found + len(word.text.strip()) if found >= 0 else position
            yield _Said(word, span, first=place == 0, glued=glued)


def _runs(said: Iterable[_Said], settings: SentenceSettings) -> Iterator[list[_Said]]:
    run: list[_Said] = []
    for each in said:
        if run and _cut_between(run, each, settings):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


def _cut_between(run: Sequence[_Said], after: _Said, settings: SentenceSettings) -> bool:
    before = run[-1]
    # Scripts without spaces glue all of their words, so there it says nothing.
    if after.glued and before.word.text.isascii():
        return False
    gap = after.word.start - before.word.end
    if gap > settings.longest_gap or -gap > settings.overlap:
        return True
    return _another_speaks(before.span, after) or ends_sentence(before.word.text, after.word.text)


def _another_speaks(before: Span, after: _Said) -> bool:
    speaker = after.span.speaker if after.first else None
    return speaker is not None and (speaker == "" or speaker != before.speaker)


def ends_sentence(word: str, following: str) -> bool:
    """Whether a sentence ends after `word`: "mix it." does, "Dr." and "3 oz. of" do not."""
    text = word.strip()
    if not _ENDS_SENTENCE.search(text):
        return False
    if _SHORTENED.fullmatch(text.lstrip("\"'“‘(")):
        return False
    first = following.strip().lstrip("\"'“‘([¿¡")[:1]
    return not first.islower()


def _short_enough(run: list[_Said], settings: SentenceSettings) -> Iterator[list[_Said]]:
    """The run, cut in two until no part is too long; a cut is made at the largest gap of the middle half.

    The outer quarters are left alone, so that no word or two are left over.
    """
    todo = [run]
    while todo:
        piece = todo.pop()
        if len(piece) < 2 or not _too_long(piece, settings):
            yield piece
            continue
        cut = _best_cut(piece)
        todo += [piece[cut:], piece[:cut]]


def _too_long(run: Sequence[_Said], settings: SentenceSettings) -> bool:
    punctuated = bool(_ENDS_SENTENCE.search(run[-1].word.text.strip()))
    most_words = settings.punctuated_words if punctuated else settings.words
    most_seconds = settings.punctuated_seconds if punctuated else settings.seconds
    spoken = len(words_in(_text(run)))
    return spoken > most_words or run[-1].word.end - run[0].word.start > most_seconds


def _best_cut(run: Sequence[_Said]) -> int:
    """The place before which to cut: largest silence, else the slowest word, else nearest to the middle."""
    edge = len(run) // 4

    def goodness(place: int) -> tuple[float, float, float]:
        before, after = run[place - 1].word, run[place].word
        silence = max(0.0, after.start - before.end)
        return round(silence, 3), round(after.start - before.start, 3), -abs(place - len(run) / 2)

    places = range(max(1, edge), min(len(run) - 1, len(run) - edge) + 1)
    return max([place for place in places if not run[place].glued] or places, key=goodness)


def _sentence(run: Sequence[_Said]) -> Sentence:
    return Sentence(
        start=run[0].word.start,
        end=max(each.word.end for each in run),
        text=_text(run),
        confidence=_mean(
            each.span.confidence if each.word.confidence is None else each.word.confidence for each in run
        ),
        no_speech=_mean(each.span.no_speech for each in run),
        compression=_mean(each.span.compression for each in run),
    )


def _text(run: Sequence[_Said]) -> str:
    words: list[str] = []
    for each in run:
        text = each.word.text.strip()
        if each.glued and words:
            words[-1] += text
        else:
            words.append(text)
    return join_words(words)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _counted_in_a_row(speech: list[Sentence]) -> Iterator[Sentence]:
    """The sentences, each with the length of the row of equal ones that it stands in."""
    begin = 0
    while begin < len(speech):
        words = words_in(speech[begin].text)
        end = begin + 1
        while end < len(speech) and words_in(speech[end].text) == words:
            end += 1
        yield from (replace(each, said_in_a_row=end - begin) for each in speech[begin:end])
        begin = end
