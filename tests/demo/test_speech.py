"""The committed clips: all there, small, and with word times that can be trusted."""

from pathlib import Path

import numpy as np
import pytest

from demo import speech
from demo.make_speech import parse_phones, word_spans
from demo.vocabulary import NARRATORS, STEPS, all_sentences, elsewhere_sentence, step_sentences


def test_every_sentence_was_spoken_by_every_narrator() -> None:
    assert set(speech.clips()) == {(narrator, text) for narrator in NARRATORS for text in all_sentences()}


def test_word_times_are_in_order_and_inside_their_clip() -> None:
    for clip in speech.clips().values():
        assert [word.text for word in clip.words] == clip.text.split()
        times = [time for word in clip.words for time in (word.start, word.end)]
        assert times == sorted(times), clip.text
        assert all(word.end - word.start > 0.02 for word in clip.words), clip.text
        assert times[0] >= 0
        assert times[-1] <= clip.duration + 0.001
        assert max(word.end - word.start for word in clip.words) < 1.2, clip.text


@pytest.mark.parametrize("narrator", NARRATORS)
def test_clips_hold_speech_from_the_first_word_to_the_last(narrator: str) -> None:
    for text in all_sentences()[::9]:
        clip, wave = speech.clips()[narrator, text], speech.samples(narrator, text)
        assert len(wave) == pytest.approx(clip.duration * speech.RATE_HZ, abs=2)
        for word in clip.words:
            spoken = wave[round(word.start * speech.RATE_HZ) : round(word.end * speech.RATE_HZ)]
            assert np.abs(spoken).max() > 0.01, (text, word.text)
        edges = np.concatenate([wave[:240], wave[-240:]])
        assert np.abs(edges).max() < 0.1 * np.abs(wave).max()


def _pitch_hz(wave: speech.Samples) -> float:
    """The median over voiced windows of the best autocorrelation lag between 70 and 300 Hz."""
    lags = np.arange(speech.RATE_HZ // 300, speech.RATE_HZ // 70)
    found = []
    for window in wave[: len(wave) // 1200 * 1200].reshape(-1, 1200):
        if np.abs(window).mean() > 0.03:
            spectrum = np.abs(np.fft.rfft(window - window.mean(), 4096)) ** 2
            found.append(speech.RATE_HZ / lags[np.argmax(np.fft.irfft(spectrum)[lags])])
    return float(np.median(found))


def test_the_two_narrators_can_be_told_apart_by_pitch() -> None:
    sentences = all_sentences()[::40]
    nora, otto = ([_pitch_hz(speech.samples(narrator, text)) for text in sentences] for narrator in NARRATORS)
    assert min(nora) > max(otto)


def test_sentences_about_a_step_name_it_and_no_other() -> None:
    told = [sentence for step in STEPS for sentence in step_sentences(step)]
    assert len(set(told)) == len(told)
    for step in STEPS:
        action, thing = step.split()
        assert all(action in sentence.lower() and thing in sentence for sentence in step_sentences(step))
        assert thing in elsewhere_sentence(step)
        assert elsewhere_sentence(step) not in told


def test_demo_is_small() -> None:
    folder = Path(speech.__file__).parent
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 5 * 2**20


def test_word_times_follow_the_phones() -> None:
    """Two words of one phone each ("I", "a"), as the synthesiser prints them, with a pause between."""
    printed = "pau:0.2 ay:0.5 pau:0.6 ax:0.7 pau:0.9 "
    assert parse_phones(printed) == [("pau", 0.2), ("ay", 0.5), ("pau", 0.6), ("ax", 0.7), ("pau", 0.9)]
    names = {"i": ("ay",), "a": ("ax",)}
    assert word_spans("I a", parse_phones(printed), lambda word: names[word.lower()]) == [(0.2, 0.5), (0.6, 0.7)]
