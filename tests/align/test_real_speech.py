"""What a real speech model writes, judged: speech is kept, invented text is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from faster_whisper import decode_audio

from align.align import AlignSettings, narrations
from align.video import video_text
from ingest.transcribe import Listener, TranscribeSettings
from sayso.errors import Skip
from sayso.rows import Media, Narration, SourceFacts

RATE = 16000


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener(TranscribeSettings(device="cpu", offline=True))


def heard(listener: Listener, file: Path, seconds: int) -> list[Narration]:
    sound = decode_audio(str(file), sampling_rate=RATE)[: seconds * RATE]
    source = SourceFacts(sha256="a", bytes=1, container="mp4", duration=seconds)
    media = Media(
        video_id="real:1", key="media/real:1/proxy.mp4", sha256="a", bytes=1, duration=seconds, width=320, height=256,
        fps=10.0, audio=True, source=source,
    )  # fmt: skip
    return narrations(video_text(media, [listener.listen(sound, "real:1")]), AlignSettings())


def test_clear_speech_is_kept(real_media: Path, listener: Listener) -> None:
    (row,) = heard(listener, real_media / "nasa_13013.mp4", 14)
    assert row.kept
    assert "Webb Space Telescope" in row.text


@pytest.mark.parametrize(("file", "seconds"), [("video2slides_example.mp4", 30), ("decord_pancake.mkv", 11)])
def test_text_invented_for_chinese_or_for_a_kitchen_is_not(
    real_media: Path, listener: Listener, file: str, seconds: int
) -> None:
    with pytest.raises(Skip) as caught:
        heard(listener, real_media / file, seconds)
    assert caught.value.reason == "low_confidence"
