"""The stage transcribe, where no real speech is needed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import ctranslate2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.fetch import Fetch, FetchSettings
from ingest.sources.folder import find
from ingest.transcribe import RATE, Chunk, Listener, Transcribe, TranscribeSettings, joined, pack, spread, to_span, vote
from sayso.errors import ModelNotFound, Skip
from sayso.root import Root
from sayso.rows import Media

Make = Callable[..., Path]

SCENE = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=3")
NOISE = ("-f", "lavfi", "-i", "anoisesrc=color=pink:amplitude=0.3:duration=3:seed=1")


def fetched(root: Root, path: Path) -> Media:
    fetch = Fetch(root, FetchSettings())
    fetch.open()
    (video,) = find(path)
    (media,) = fetch(video)
    return media


@pytest.mark.parametrize(("sound", "reason"), [((), "no_audio"), (NOISE, "no_speech")])
def test_where_nobody_speaks_the_video_is_skipped(sound: tuple[str, ...], reason: str, root: Root, make: Make) -> None:
    media = fetched(root, make("x.mp4", *SCENE, *sound))
    stage = Transcribe(root, TranscribeSettings())
    stage.open()
    with pytest.raises(Skip) as told:
        stage(media)
    assert told.value.reason == reason


@pytest.mark.parametrize("samples", [0, 1, RATE // 50, RATE])
def test_very_short_sound_is_no_speech(samples: int) -> None:
    with pytest.raises(Skip) as told:
        Listener(TranscribeSettings()).listen(np.zeros(samples, np.float32), "x:y")
    assert told.value.reason == "no_speech"


def test_a_model_that_is_not_there_is_told_before_the_work_begins(root: Root) -> None:
    with pytest.raises(ModelNotFound):
        Transcribe(root, TranscribeSettings(model="/no/such/model"))


@pytest.mark.parametrize(("devices", "gpus"), [(0, 0.0), (2, 1.0)])
def test_auto_asks_the_cluster_for_the_gpu_that_it_takes(
    devices: int, gpus: float, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settled where the run begins: its workers would else all take the first GPU of their machine."""
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: devices)
    stage = Transcribe(root, TranscribeSettings())
    assert stage.resources.gpus == gpus
    monkeypatch.undo()
    assert pickle.loads(pickle.dumps(stage)).device == ("cuda" if devices else "cpu")
    assert Transcribe(root, TranscribeSettings(device="cpu")).resources.gpus == 0


def test_a_stage_travels_to_its_worker_without_its_model(root: Root) -> None:
    stage = pickle.loads(pickle.dumps(Transcribe(root, TranscribeSettings(beam_size=2))))
    assert stage.settings.beam_size == 2
    assert stage.root.url == root.url


@st.composite
def chunk_lists(draw: st.DrawFn) -> list[Chunk]:
    edges = sorted(draw(st.sets(st.integers(0, 2000), min_size=2, max_size=20)))
    return [{"start": start, "end": end} for start, end in pairwise(edges)][::2]


@given(chunk_lists(), st.integers(1, 500))
def test_windows_hold_every_chunk_once_and_are_as_full_as_they_may_be(chunks: list[Chunk], most: int) -> None:
    windows = list(pack(chunks, most))
    assert [chunk for window in windows for chunk in window] == chunks
    sound = np.arange(2001, dtype=np.float32)
    lengths = [len(joined(sound, window)) for window in windows]
    assert all(length <= most or len(window) == 1 for length, window in zip(lengths, windows, strict=True))
    assert all(
        before + after[0]["end"] - after[0]["start"] > most for before, after in zip(lengths, windows[1:], strict=False)
    )


def test_the_language_is_what_most_of_the_speech_is_in() -> None:
    intro = [("en", 0.9), ("zh", 0.1)]
    talk = [("zh", 0.8), ("en", 0.2)]
    assert vote([intro, talk, talk]) == ("zh", 0.5667)
    assert vote([intro]) == ("en", 0.9)


@given(st.integers(1, 60), st.integers(1, 9))
def test_voting_windows_reach_from_the_first_to_the_last(count: int, most: int) -> None:
    windows = [[{"start": number, "end": number + 1}] for number in range(count)]
    chosen = spread(windows, most)
    assert len(chosen) == min(count, most)
    assert chosen[0] == windows[0]
    assert chosen[-1] == windows[-1] or most == 1


def segment(*words: tuple[float, float, str]) -> SimpleNamespace:
    """What faster-whisper gives for a sentence."""
    listed = [SimpleNamespace(start=start, end=end, word=text, probability=0.5) for start, end, text in words]
    text = "".join(word.word for word in listed)
    return SimpleNamespace(words=listed, text=text, no_speech_prob=0.1, compression_ratio=1.25)


def test_a_span_is_bounded_by_its_words() -> None:
    span = to_span(segment((1.00004, 1.5, " Cut"), (1.5, 1.4, " the"), (1.9, 2.5, " carrot.")))
    assert span is not None
    assert (span.start, span.end, span.text) == (1.0, 2.5, "Cut the carrot.")
    assert [(word.start, word.end, word.text) for word in span.words] == [
        (1.0, 1.5, "Cut"),
        (1.5, 1.5, "the"),
        (1.9, 2.5, "carrot."),
    ]
    assert (span.confidence, span.no_speech, span.compression) == (0.5, 0.1, 1.25)


def test_a_segment_without_words_is_no_span() -> None:
    assert to_span(segment()) is None
    assert to_span(segment((0, 1, " "))) is None
