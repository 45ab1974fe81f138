"""Filters: what is dropped, and for which reason."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.quality import Context, QualitySettings, compression, is_junk, judge
from align.sentences import Sentence

GOOD = Sentence(start=1.0, end=3.0, text="Now stir it well.", confidence=0.9, no_speech=0.1, compression=1.3)
VIDEO = Context(QualitySettings(), duration=60.0)


def test_a_plain_sentence_is_kept_whether_or_not_its_source_gives_figures() -> None:
    assert judge(GOOD, VIDEO) == ""
    assert judge(Sentence(1.0, 3.0, "Now stir it well."), VIDEO) == ""
    assert judge(Sentence(1.0, 3.0, "现在搅拌。"), VIDEO) == ""


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        (replace(GOOD, text="[Applause]", sound=True), "sound"),
        (replace(GOOD, text="[Music]", sound=True), "music"),
        (replace(GOOD, text="♪ la la la ♪", sound=True), "music"),
        (replace(GOOD, start=60.0, end=61.0), "outside"),
        (replace(GOOD, start=58.0, end=61.5), "outside"),
        (replace(GOOD, text="no no no no no no"), "loop"),
        (replace(GOOD, text="the cat and the dog and the fish and the bird and the " * 5, end=15.0), "loop"),
        (replace(GOOD, compression=2.5), "loop"),
        (replace(GOOD, said_in_a_row=3), "loop"),
        (replace(GOOD, text="Thanks for watching!", confidence=0.7), "invented"),
        (replace(GOOD, text="Thank you.", confidence=0.7), "invented"),
        (replace(GOOD, no_speech=0.7, confidence=0.55), "no_speech"),
        (replace(GOOD, no_speech=0.7, confidence=None), "no_speech"),
        (replace(GOOD, confidence=0.3), "low_confidence"),
        (replace(GOOD, text="Okay."), "too_short"),
        (replace(GOOD, text="a b"), "too_short"),
        (replace(GOOD, end=32.0), "too_long"),
        (replace(GOOD, end=1.4), "too_fast"),
        (replace(GOOD, end=1.0), "too_fast"),
        (replace(GOOD, end=20.0), "too_slow"),
    ],
)
def test_reasons(sentence: Sentence, reason: str) -> None:
    assert judge(sentence, VIDEO) == reason


@pytest.mark.parametrize(
    "sentence",
    [
        replace(GOOD, said_in_a_row=2),
        replace(GOOD, text="Stir, stir, stir."),
        replace(GOOD, text="Thank you.", confidence=None),
        replace(GOOD, text="Thank you.", confidence=0.95),
        replace(GOOD, text="Thank you for the bowl.", confidence=0.7),
        replace(GOOD, no_speech=0.9),
        replace(GOOD, start=57.0, end=60.5),
    ],
)
def test_what_only_looks_like_it_is_kept(sentence: Sentence) -> None:
    assert judge(sentence, VIDEO) == ""


def test_every_threshold_can_be_moved() -> None:
    lenient = QualitySettings(
        fewest_words=1, lowest_confidence=0.0, loop_in_a_row=9, invented_phrases=(), most_characters_per_second=1000
    )
    for sentence in (
        replace(GOOD, text="Okay.", confidence=0.1),
        replace(GOOD, said_in_a_row=4),
        replace(GOOD, text="Thank you.", confidence=0.7),
        replace(GOOD, end=1.1),
    ):
        assert judge(sentence, VIDEO) != ""
        assert judge(sentence, replace(VIDEO, settings=lenient)) == ""


def test_a_still_picture_shows_nothing_that_is_said() -> None:
    assert judge(GOOD, replace(VIDEO, still_share=0.95)) == "still_picture"
    assert judge(GOOD, replace(VIDEO, still_share=0.94)) == ""


@given(st.text(min_size=1))
def test_compression_is_bytes_for_a_byte_of_zlib(text: str) -> None:
    data = text.encode()
    assert zlib.decompress(zlib.compress(data)) == data
    assert compression(text) == len(data) / len(zlib.compress(data))


def test_half_of_the_words_in_junk_make_a_transcript_junk() -> None:
    invented = replace(GOOD, text="Thank you.", confidence=0.7)
    assert is_junk([GOOD, invented], VIDEO) is False
    assert is_junk([GOOD, invented, invented], VIDEO) is True
    # Words that are only short, or sounds, say nothing against the rest.
    assert is_junk([replace(GOOD, text="Okay."), replace(GOOD, text="[Music]", sound=True)], VIDEO) is False
    assert is_junk([], VIDEO) is False


def test_a_text_that_goes_round_is_a_loop_at_any_confidence() -> None:
    rng = random.Random(7)
    vocabulary = ["cut", "fold", "pour", "stir", "the", "paper", "bowl", "then", "slowly", "again", "left", "right"]
    for _ in range(20):
        phrase = " ".join(rng.sample(vocabulary, 5))
        looped = replace(GOOD, text=" ".join([phrase] * 6), end=13.0, confidence=0.99, compression=None)
        varied = replace(GOOD, text=" ".join(rng.sample(vocabulary, 10)), end=5.0, compression=None)
        assert judge(looped, VIDEO) == "loop"
        assert judge(varied, VIDEO) == ""
