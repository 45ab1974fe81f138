"""The real videos beside the checkout, ingested once by the command. Collected only where they are."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pysubs2
import pytest
from rapidfuzz.distance import Levenshtein

from ingest.ffmpeg import find_ffmpeg
from ingest.probe import probe
from ingest.transcribe import Transcribe, TranscribeSettings
from sayso.engine.failures import newest_failures
from sayso.root import Root
from sayso.rows import Media, Transcript, Video

MEDIA = Path(__file__).resolve().parents[3] / "shared/media"

_SAME = {"1": "one", "2": "two", "spectre": "specter"}
_LOOP = 2.4  # Whisper's own limit of the compression ratio


class World:
    """What came out of every file: its media row, and its transcript or the reason why it has none."""

    def __init__(self, root: Root) -> None:
        self.root = root
        titles = {video.video_id: video.title for video in root.table(Video).rows()}
        self.media = {titles[media.video_id]: media for media in root.table(Media).rows()}
        heard = (row for row in root.table(Transcript).rows() if row.source.startswith("asr:"))
        self.transcripts = {titles[row.video_id]: row for row in heard}
        refused = newest_failures(root, "transcribe").to_pylist()
        self.skipped = {titles[row["id"]]: row["reason"] for row in refused}


@pytest.fixture(scope="module")
def world(real_root: Path) -> World:
    return World(Root(str(real_root)).open())


def words(text: str) -> list[str]:
    plain = re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("\n", " "))
    return [_SAME.get(word, word) for word in plain.split()]


def said(transcript: Transcript) -> str:
    return " ".join(span.text for span in transcript.spans)


def test_every_file_goes_through(world: World) -> None:
    assert len(world.media) == 7
    assert world.transcripts.keys() | world.skipped.keys() == world.media.keys()
    for media in world.media.values():
        for stored in media.objects():
            world.root.storage.check(stored)


def test_the_audiobook_is_read_with_few_word_errors(world: World) -> None:
    reference = words(" ".join(event.plaintext for event in pysubs2.load(str(MEDIA / "manifesto.srt"))))
    read = words(said(world.transcripts["manifesto"]))
    assert Levenshtein.distance(reference, read) / len(reference) <= 0.08


def test_words_are_where_people_put_them(world: World) -> None:
    """Against the start of those subtitles whose words were read as they are written."""
    heard = [
        (text, word.start)
        for span in world.transcripts["manifesto"].spans
        for word in span.words
        for text in words(word.text)
    ]
    texts = [text for text, _ in heard]
    apart = [
        abs(heard[at][1] - event.start / 1000)
        for event in pysubs2.load(str(MEDIA / "manifesto.srt"))
        for at in range(len(heard))
        if texts[at : at + len(words(event.plaintext))] == words(event.plaintext)
    ]
    assert len(apart) > 15
    assert np.median(apart) < 0.5


def test_the_still_picture_is_known_to_be_still(world: World) -> None:
    media = world.media["manifesto"]
    assert max(part.end - part.start for part in media.still) > 0.95 * media.duration
    assert world.media["nasa_13013"].still == []


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("nasa_13013", "one of the largest clean rooms in the world"),
        ("jfk", "ask what you can do for your country"),
        ("autoeditor_example", "on the bottom right you can see the time"),
        ("v2d_test_video", "we are a community project of people who met on discord"),
    ],
)
def test_english_speech_is_read(name: str, phrase: str, world: World) -> None:
    assert phrase in " ".join(words(said(world.transcripts[name])))


def test_times_lie_inside_the_video_and_in_order(world: World) -> None:
    for name, transcript in world.transcripts.items():
        every = [word for span in transcript.spans for word in span.words]
        assert all(0 <= word.start <= word.end <= world.media[name].duration + 0.1 for word in every)
        assert all(before.start <= after.start for before, after in pairwise(every))
        assert all(0 <= (word.confidence or 0) <= 1 for word in every)


def test_a_talk_in_another_language_gives_itself_away_by_loops(world: World) -> None:
    """A model of English only cannot name the language; what it makes of it repeats itself, as English never does."""

    def looping(name: str) -> float:
        spans = world.transcripts[name].spans
        loops = [span for span in spans if (span.compression or 0) > _LOOP]
        return sum(len(span.words) for span in loops) / sum(len(span.words) for span in spans)

    assert looping("video2slides_example") > 0.8
    for name in ("manifesto", "nasa_13013", "jfk", "autoeditor_example", "v2d_test_video"):
        assert looping(name) == 0


def test_cooking_without_a_speaker_says_next_to_nothing(world: World) -> None:
    name = "decord_pancake"
    assert name in world.skipped or world.transcripts[name].speech_seconds < 3


def test_the_larger_of_two_pictures_and_the_better_of_two_sounds_are_taken(tmp_path: Path) -> None:
    found = probe(MEDIA / "nasa_13013.mp4", tmp_path, find_ffmpeg())
    assert found.video and found.audio
    assert (found.video.index, found.audio.index) == (3, 4)


def test_sound_alone_stays_sound(world: World) -> None:
    media = world.media["jfk"]
    assert (media.width, media.height, media.fps, media.audio) == (0, 0, 0.0, True)
    assert media.duration == pytest.approx(11, abs=0.1)


def test_proxies_play_to_their_end(world: World) -> None:
    for name, media in world.media.items():
        with world.root.storage.local(media.key) as path, av.open(str(path)) as container:
            kinds = {stream.type for stream in container.streams}
            assert kinds == {"audio"} if name == "jfk" else {"audio", "video"}
            frames = sum(1 for frame in container.decode(video=0)) if media.width else 0
        assert frames == pytest.approx(10 * media.duration if media.width else 0, abs=4)


def test_the_same_sound_gives_the_same_rows(world: World) -> None:
    again = Transcribe(world.root, TranscribeSettings())
    again.open()
    (transcript,) = again(world.media["nasa_13013"])
    assert transcript == world.transcripts["nasa_13013"]
