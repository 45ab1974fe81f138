"""Words with times to sentences with times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.sentences import SentenceSettings, ends_sentence, sentences, timed_words
from sayso.rows import Span, Word

SETTINGS = SentenceSettings()


def span(start: float, end: float, text: str, **facts: object) -> Span:
    return Span.model_validate({"start": start, "end": end, "text": text, **facts})


def spoken(*words: tuple[float, float, str], confidence: float | None = None) -> Span:
    timed = [Word(start=start, end=end, text=text, confidence=confidence) for start, end, text in words]
    return Span(start=timed[0].start, end=timed[-1].end, text=" ".join(w.text for w in timed), words=timed)


def texts(spans: Sequence[Span], settings: SentenceSettings = SETTINGS) -> list[str]:
    return [sentence.text for sentence in sentences(spans, settings)]


def test_sentences_end_at_punctuation_and_keep_the_times_of_their_words() -> None:
    cut = sentences(
        [spoken((0.0, 0.4, "Stir"), (0.5, 0.9, "it.")), spoken((1.0, 1.2, "Then"), (1.3, 2.0, "pour."))], SETTINGS
    )
    assert [(each.start, each.end, each.text) for each in cut] == [(0.0, 0.9, "Stir it."), (1.0, 2.0, "Then pour.")]


def test_a_sentence_runs_on_through_segments() -> None:
    assert texts([span(0, 2, "now we take the"), span(2, 4, "bowl and stir.")]) == ["now we take the bowl and stir."]


def test_a_pause_of_more_than_a_second_ends_a_sentence() -> None:
    assert texts([span(0, 2, "take it"), span(2.9, 4, "and stir"), span(5.1, 6, "and pour")]) == [
        "take it and stir",
        "and pour",
    ]


def test_another_speaker_begins_a_sentence() -> None:
    spans = [
        span(0, 1, "you take", speaker="ANN"),
        span(1, 2, "this one", speaker="ANN"),
        span(2, 3, "like so", speaker="BOB"),
        span(3, 4, "right", speaker=""),
        span(4, 5, "yes", speaker=""),
        span(5, 6, "indeed"),
    ]
    assert texts(spans) == ["you take this one", "like so", "right", "yes indeed"]


def test_cues_that_overlap_are_not_mixed() -> None:
    assert texts([span(0, 4, "a long remark that"), span(2, 3, "short one")]) == ["a long remark that", "short one"]


def test_untimed_words_share_the_time_of_their_cue_by_letters() -> None:
    words = timed_words(span(10.0, 14.0, "ab cdef gh"))
    assert [(word.start, word.end, word.text) for word in words] == [
        (10.0, 11.0, "ab"),
        (11.0, 13.0, "cdef"),
        (13.0, 14.0, "gh"),
    ]


def test_long_unpunctuated_text_is_cut_at_its_largest_gap() -> None:
    words = [
        (0.5 * n + (0.3 if n >= 11 else 0.0), 0.5 * n + 0.4 + (0.3 if n >= 11 else 0.0), f"w{n}") for n in range(20)
    ]
    settings = SentenceSettings(words=16, seconds=60)
    cut = texts([spoken(*words)], settings)
    assert [len(text.split()) for text in cut] == [11, 9]


def test_a_punctuated_sentence_may_be_longer() -> None:
    words = " ".join(f"w{n}" for n in range(19))
    assert len(texts([span(0, 9, words)])) > 1
    assert texts([span(0, 9, f"{words}.")]) == [f"{words}."]


@pytest.mark.parametrize(
    ("word", "following", "ends"),
    [
        ("it.", "Then", True),
        ("it!”", "Then", True),
        ("it?", "10", True),
        ("so...", "and", False),
        ("oz.", "of", False),
        ("Dr.", "Smith", False),
        ("J.", "Smith", False),
        ("e.g.", "Sugar", False),
        ("it", "Then", False),
        ("好。", "今", True),
        ("well.", "“Then", True),
    ],
)
def test_where_sentences_end(word: str, following: str, ends: bool) -> None:
    assert ends_sentence(word, following) is ends


def test_words_without_a_space_between_stay_together() -> None:
    words = [
        Word(start=n, end=n + 0.9, text=text) for n, text in enumerate(["above", "0", ".3", "on", "www", ".a", ".org."])
    ]
    whole = Span(start=0, end=6.9, text="above 0.3 on www.a.org.", words=words)
    assert texts([whole]) == ["above 0.3 on www.a.org."]


def test_chinese_is_cut_at_its_own_full_stops_and_joined_without_spaces() -> None:
    assert texts([span(0, 4, "加入糖。然后"), span(4, 6, "搅拌。")]) == ["加入糖。", "然后搅拌。"]


def test_figures_are_means_over_the_words() -> None:
    sure = Span(start=0, end=1, text="stir", words=[Word(start=0, end=1, text="stir", confidence=0.9)], no_speech=0.2)
    unsure = Span(start=1, end=2, text="it now", confidence=0.3, no_speech=0.8, compression=1.5)
    (sentence,) = sentences([sure, unsure], SETTINGS)
    assert sentence.confidence == pytest.approx(0.5)
    assert sentence.no_speech == pytest.approx(0.6)
    assert sentence.compression == 1.5


def test_sounds_are_counted_and_scenes_are_left_out() -> None:
    spans = [span(0, 1, "[Music]", kind="sound"), span(1, 2, "stir it"), span(2, 3, "INT. KITCHEN", kind="scene")]
    assert [(each.text, each.sound) for each in sentences(spans, SETTINGS)] == [("[Music]", True), ("stir it", False)]


def test_repeats_in_a_row_are_counted() -> None:
    spans = [span(3 * n, 3 * n + 1, text) for n, text in enumerate(["Yes.", "Stir it.", "stir it", "Stir it!", "Yes."])]
    assert [each.said_in_a_row for each in sentences(spans, SETTINGS)] == [1, 3, 3, 3, 1]


@st.composite
def tracks(draw: st.DrawFn) -> list[Span]:
    """Spans one after the other, some with word times."""
    made: list[Span] = []
    clock = 0.0
    for _ in range(draw(st.integers(1, 6))):
        clock += draw(st.sampled_from([0.0, 0.3, 0.9, 1.5, 4.0]))
        words = draw(st.lists(st.sampled_from(["a", "stir", "it.", "Now", "pour,", "10"]), min_size=1, max_size=30))
        length = draw(st.sampled_from([0.5, 3.0, 12.0]))
        one = span(clock, clock + length, " ".join(words))
        made.append(one.model_copy(update={"words": timed_words(one)}) if draw(st.booleans()) else one)
        clock += length
    return made


@given(tracks(), st.randoms())
def test_no_word_is_lost_or_moved_and_the_order_of_spans_does_not_matter(spans: list[Span], random: Random) -> None:
    cut = sentences(spans, SETTINGS)
    assert " ".join(each.text for each in cut).split() == " ".join(each.text for each in spans).split()
    words = [word for each in spans for word in timed_words(each)]
    position = 0
    for each in cut:
        mine = words[position : position + len(each.text.split())]
        position += len(mine)
        assert (each.start, each.end) == (mine[0].start, mine[-1].end)
        gaps = [after.start - before.end for before, after in pairwise(mine)]
        assert all(gap <= SETTINGS.longest_gap for gap in gaps)
        if not each.text.endswith("."):
            assert len(mine) == 1 or (len(mine) <= SETTINGS.words and each.end - each.start <= SETTINGS.seconds)
    shuffled = list(spans)
    random.shuffle(shuffled)
    assert sentences(shuffled, SETTINGS) == cut
