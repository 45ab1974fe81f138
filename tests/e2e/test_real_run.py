"""The whole ingestion on real videos: speech, slides, two pictures in one file, a kitchen without a word, a still
picture, 1080p, a talk in Chinese, sound alone. Collected only where they lie beside the checkout.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from sayso.engine.failures import newest_failures
from sayso.root import Root
from sayso.rows import Narration, Shard, Video

SPOKEN_ENGLISH = {"nasa_13013", "v2d_test_video"}


@pytest.fixture(scope="module")
def root(real_root: Path) -> Root:
    return Root(str(real_root)).open()


@pytest.fixture(scope="module")
def titles(root: Root) -> dict[str, str]:
    return {video.video_id: video.title for video in root.table(Video).rows()}


def test_every_video_is_used_or_dropped_with_a_reason(root: Root, titles: dict[str, str]) -> None:
    dropped = {titles[row["id"]]: row["reason"] for row in newest_failures(root, "align").to_pylist()}
    assert dropped == {
        "video2slides_example": "low_confidence",  # what a model of English makes of Chinese
        "decord_pancake": "low_confidence",  # cooking, no word
        "jfk": "no_video",  # read well, but there is nothing to see
    }
    reasons: dict[str, set[str]] = defaultdict(set)
    for row in root.table(Narration).rows():
        reasons[titles[row.video_id]].add(row.reason)
    assert reasons["manifesto"] == {"still_picture"}
    assert "" in reasons["v2d_test_video"]
    assert "" in reasons["nasa_13013"]
    assert set(reasons) | set(dropped) == set(titles.values())


def test_clips_play_and_hold_the_narration(root: Root, titles: dict[str, str]) -> None:
    """Every clip decodes to its end, picture and sound, and is as long as its window."""
    played = set()
    for shard in root.table(Shard).rows():
        with root.storage.local(shard.key) as path, tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]  # all are files
        for name in [name for name in files if name.endswith(".json")]:
            facts = json.loads(files[name])
            picture, sound = _played(files[name.removesuffix(".json") + ".mp4"])
            length = facts["clip_end"] - facts["clip_start"]
            assert picture == pytest.approx(length, abs=0.15)
            assert sound == pytest.approx(length, abs=0.15) or titles[facts["video_id"]] == "nasa_13013"
            assert facts["clip_start"] <= facts["start"] <= facts["candidates"][0]["end"]
            played.add(titles[facts["video_id"]])
    assert played == SPOKEN_ENGLISH


def _played(clip: bytes) -> tuple[float, float]:
    """Seconds of decoded picture and sound."""
    with av.open(io.BytesIO(clip), "r") as container:
        frames = sum(1 for _ in container.decode(video=0))
    with av.open(io.BytesIO(clip), "r") as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    return frames / 10, samples / 16000


def test_it_is_whole_and_a_second_run_takes_seconds(
    root: Root, real_media: Path, sayso: Callable[..., Any], real_root: Path
) -> None:
    verified = sayso("verify", "--root", real_root, "--json")
    assert verified.code == 0, verified.out
    assert verified.json()["extra"] == []
    again = sayso("run", "--videos", real_media, "--root", real_root, "--json", within=20)
    assert again.code == 0
    assert {stage["name"]: stage["pending"] for stage in again.json()["stages"]}["shard"] == 0
