"""A small root whose videos each show one colour and one motion and are narrated by its name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml

from sayso.ids import narration_id
from sayso.root import Root
from sayso.rows import Media, Narration, Row, Shard, SourceFacts, Video
from shards.settings import ShardSettings
from shards.stage import MakeShards
from tests.films import COLOURS, film
from train.launch import TrainResult, launch

SECONDS = 8.0


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


def _narrations(video: str, colour: str) -> list[Narration]:
    texts = [f"now the {colour} one moves", f"look how {colour} it is", f"that is {colour}, thank you"]
    return [
        Narration(
            narration_id=narration_id(video, "test", start),
            video_id=video,
            start=start,
            end=start + 2.0,
            text=text,
            source="test",
            language="en",
            kept=True,
        )
        for start, text in zip((0.5, 3.0, 5.5), texts, strict=True)
    ]


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
    make = MakeShards(root, ShardSettings(export="clips", val=0, test=0.25, samples_per_shard=20))
    make.begin()
    for plan in make.inputs(make.input_keys().to_pylist()):
        _append(root, make(plan))
    make.end()
    assert {row.split for row in root.table(Shard).rows()} == {"train", "test"}
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
