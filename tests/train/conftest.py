"""Small roots: one whose videos each show one colour and are narrated by its name, one that has features alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sayso.ids import narration_id
from sayso.root import Root
from sayso.rows import Features, FeatureStream, Media, Narration, Row, Shard, SourceFacts, Video
from shards.features import npy
from shards.settings import ShardSettings
from shards.stage import MakeShards
from tests.films import COLOURS, film
from train.launch import TrainResult, launch

SECONDS = 8.0
THINGS = ("apple", "bolt", "carrot", "drum", "egg", "flute", "glove", "hammer", "iron", "jar", "kettle", "ladder")
SCENES = 6
"""Things of a video, each shown for two seconds, and one second of nothing behind it."""
STREAMS = {"2d": (1.0, 10), "3d": (1.5, 6)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Several test processes share few cores."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def _append(root: Root, rows: Iterable[Row]) -> None:
    rows = list(rows)
    records = [{**row.model_dump(), "made_by": "test", "made_from": "test"} for row in rows]
    root.table(type(rows[0])).append(records)


def _media(video: str, data: bytes) -> Media:
    digest = hashlib.sha256(data).hexdigest()
    # As if each were made of other bytes: of copies only one would be planned.
    origin = hashlib.sha256(video.encode()).hexdigest()
    source = SourceFacts(sha256=origin, bytes=len(data), container="mp4", duration=SECONDS)
    return Media(
        video_id=video,
        key=f"media/{video.replace(':', '_')}/proxy.mp4",
        sha256=digest,
        bytes=len(data),
        duration=SECONDS,
        width=64,
        height=48,
        fps=10,
        audio=False,
        source=source,
    )


def _narration(video: str, start: float, text: str) -> Narration:
    return Narration(
        narration_id=narration_id(video, "test", start),
        video_id=video,
        start=start,
        end=start + 2.0,
        text=text,
        source="test",
        language="en",
        kept=True,
    )


def _narrations(video: str, colour: str) -> list[Narration]:
    texts = [f"now the {colour} one moves", f"look how {colour} it is", f"that is {colour}, thank you"]
    return [_narration(video, start, text) for start, text in zip((0.5, 3.0, 5.5), texts, strict=True)]


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Sixteen videos of four colours, three narrations each, in an export `clips` with splits train and test."""
    folder = tmp_path_factory.mktemp("small")
    root = Root(str(folder / "root")).create()
    for name, colour in COLOURS.items():
        path = folder / f"{name}.mp4"
        film(path, [colour], seconds=SECONDS)
        data = path.read_bytes()
        ids = [f"demo:{name}{copy}" for copy in range(4)]
        media = [_media(video, data) for video in ids]
        for row in media:
            root.storage.put_bytes(data, row.key)
        _append(root, [Video(video_id=video, url=f"file:///{video}") for video in ids])
        _append(root, media)
        _append(root, [row for video in ids for row in _narrations(video, name)])
    _make_shards(root, ShardSettings(export="clips", val=0, test=0.25, samples_per_shard=20))
    return root


def _make_shards(root: Root, settings: ShardSettings) -> None:
    make = MakeShards(root, settings)
    make.begin()
    for plan in make.inputs(make.input_keys().to_pylist()):
        _append(root, make(plan))
    make.end()
    assert {row.split for row in root.table(Shard).rows()} == {"train", "test"}


def _features(root: Root, video: str, things: list[str]) -> Features:
    """What a model that knows the things makes of a video: a direction a thing, one of the video's own, and noise."""
    own, streams = np.random.default_rng([*video.encode()]), []
    for number, (name, (fps, dim)) in enumerate(STREAMS.items()):
        directions = np.random.default_rng(number).normal(size=(len(THINGS), dim))
        rows = own.normal(scale=0.3, size=dim) + own.normal(scale=0.1, size=(round(3 * SCENES * fps), dim))
        for row, seen in enumerate(rows):
            scene, second = divmod(row / fps, 3)
            if second < 2:
                seen += directions[THINGS.index(things[int(scene)])]
        stored = root.storage.put_bytes(npy(rows.astype(np.float16)), f"media/{video[5:]}/features/{name}.npy")
        streams.append(
            FeatureStream(**stored.model_dump(), name=name, rows=len(rows), dim=dim, fps=fps, model="made up")
        )
    return Features(video_id=video, streams=streams)


def things_of(number: int) -> list[str]:
    """What video `number` of the features' root shows, in its order."""
    return [THINGS[i] for i in np.random.default_rng(number).permutation(len(THINGS))[:SCENES].tolist()]


@pytest.fixture(scope="session")
def features_root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Forty videos without a proxy, each with six narrations of what its features show then, in an export `rows`."""
    root = Root(str(tmp_path_factory.mktemp("features") / "root")).create()
    videos = {f"demo:f{number}": things_of(number) for number in range(40)}
    _append(root, [Video(video_id=video, url=f"file:///{video[5:]}.mp4") for video in videos])
    _append(root, [_media(video, b"none").model_copy(update={"duration": 3.0 * SCENES}) for video in videos])
    _append(root, [_features(root, video, things) for video, things in videos.items()])
    said = [(video, 3.0 * scene, thing) for video, things in videos.items() for scene, thing in enumerate(things)]
    _append(root, [_narration(video, start, f"here is the {thing} now") for video, start, thing in said])
    _make_shards(root, ShardSettings(export="rows", kind="features", min_window=2, val=0, test=0.4))
    return root


@pytest.fixture
def own_root(small_root: Root, tmp_path: Path) -> Root:
    """A copy of the small root that a test may spoil."""
    shutil.copytree(small_root.url, tmp_path / "own")
    return Root(str(tmp_path / "own")).open()


@pytest.fixture(scope="session")
def small_recipe(small_root: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains on the small root in seconds, on two CPU ranks."""
    folder = tmp_path_factory.mktemp("recipe")
    recipe = {
        "data": {
            "root": small_root.url,
            "export": "clips",
            "batch": 16,
            "augment": {"colour": 0.1},
            "clips": {"frames": 4, "fps": 5, "size": 32, "candidates": 1, "per_video": False},
        },
        "model": {
            "video": {"width": 0.125, "embedding": 16},
            "text": {"hidden": 32, "word_dim": 16, "max_words": 8},
        },
        "optimiser": {"lr": 1e-2, "ema": 0.9},
        "schedule": {"steps": 60, "warmup_steps": 4},
        "engine": {"ranks": 2, "device": "cpu", "threads": 1},
        "evaluation": {"every": 20, "split": "train", "batches": 1},
        "output": {"folder": str(folder / "run"), "checkpoint_every": 3},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="session")
def straight(small_recipe: Path) -> TrainResult:
    """The small recipe trained without a break."""
    return launch(small_recipe)
