"""The stage features on made films: what it stores is what the models give on exactly the frames of each row."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import ViTConfig, ViTModel

from sayso.engine import attempt
from sayso.engine.outcome import Done
from sayso.errors import ConfigError, Permanent, Skip
from sayso.root import Root
from sayso.rows import Features, Media, SourceFacts
from shards.clips import make_clip
from shards.crop import Crop
from shards.decode import decode
from shards.reader import ClipReader, ReaderSettings
from shards.settings import ShardSettings
from shards.stage import MakeShards
from tests.films import COLOURS, MEANS, MEANS_OF_ONE, film, random_model
from tests.made import put
from tests.shards.conftest import Lab
from train.features.settings import FeaturesSettings, StreamSettings
from train.features.stage import MakeFeatures
from train.weights import load_model

SECONDS = 9.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FeaturesSettings:
    """The mean colour of a picture a second, and a small S3D-G of 4 frames at 5 fps, 1.5 times a second."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "means.onnx").write_bytes(MEANS)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    streams = [
        {"name": "3d", "fps": 1.5, "kind": "s3d", "model": str(random_model(folder / "s3d")), "batch": 4},
        {"name": "2d", "fps": 1.0, "kind": "onnx", "model": str(folder / "means.onnx"), "size": 40, **plain},
        {"name": "none", "fps": 1.0, "kind": "transformers"},
    ]
    return FeaturesSettings.model_validate({"streams": streams, "offline": True, "device": "cpu"})


@pytest.fixture
def filled(tmp_path: Path) -> Root:
    """A video that is red, then green, then blue, and another that is white."""
    root = Root(str(tmp_path / "root")).create()
    for video, names in {"site:rgb": ["red", "green", "blue"], "site:white": ["white"]}.items():
        path = tmp_path / "film.mp4"
        film(path, [COLOURS[name] for name in names], seconds=SECONDS)
        put(root, [media_row(root, video, path.read_bytes())], "fetch")
    return root


def media_row(root: Root, video: str, data: bytes, *, width: int = 64) -> Media:
    root.storage.put_bytes(data, f"media/{video}/proxy.mp4")
    source = SourceFacts(sha256=hashlib.sha256(video.encode()).hexdigest(), bytes=1, container="mp4", duration=SECONDS)
    return Media(
        video_id=video,
        key=f"media/{video}/proxy.mp4",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        duration=SECONDS,
        width=width,
        height=48,
        fps=10,
        audio=False,
        source=source,
    )


def opened(root: Root, settings: FeaturesSettings) -> MakeFeatures:
    stage = MakeFeatures(root, settings)
    stage.check()
    stage.open()
    return stage


def media(root: Root, video: str = "site:rgb") -> Media:
    (row,) = root.table(Media).rows(video_id=video)
    return row


def arrays(root: Root, row: Features) -> dict[str, npt.NDArray[np.float16]]:
    return {each.name: np.load(io.BytesIO(root.storage.read(each.key)), allow_pickle=False) for each in row.streams}


def test_each_row_is_what_the_model_gives_on_exactly_its_frames(filled: Root, settings: FeaturesSettings) -> None:
    (made,) = opened(filled, settings)(media(filled))
    assert [(each.name, each.fps, each.rows) for each in made.streams] == [("2d", 1.0, 9), ("3d", 1.5, 14)]
    found, data = arrays(filled, made), filled.storage.read(media(filled).key)
    assert {name: rows.dtype for name, rows in found.items()} == {"2d": np.float16, "3d": np.float16}
    model = load_model(Path(settings.streams[0].model or "")).model.video
    assert found["3d"].shape == (14, model.channels)
    with torch.inference_mode():
        for row, numbers in enumerate(found["3d"]):
            times = [(row + 0.5) / 1.5 + (j - 1.5) / 5 for j in range(4)]
            frames = torch.from_numpy(decode(data, times, Crop(size=32, short_side=37)))
            wanted = model(frames[None].permute(0, 4, 1, 2, 3) / 255)["mixed_5c"][0]
            assert numbers == pytest.approx(wanted.numpy(), abs=2e-3, rel=2e-3)
    assert np.abs(np.diff(found["3d"].astype(np.float32), axis=0)).max() > 0.01


def test_known_colours_stand_where_they_are_shown(filled: Root, settings: FeaturesSettings) -> None:
    (made,) = opened(filled, settings)(media(filled))
    rows = arrays(filled, made)["2d"]
    assert rows.argmax(axis=1).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    (white,) = opened(filled, settings)(media(filled, "site:white"))
    seen = arrays(filled, white)["2d"]
    assert np.abs(seen - seen[:, :1]).max() < 0.02
    assert seen.min() > 0.4


def test_what_it_stores_hangs_on_nothing_but_the_video_and_the_model(filled: Root, settings: FeaturesSettings) -> None:
    """Made again, on other numbers of threads, alone or beside other streams: the same rows and bytes."""
    (first,) = opened(filled, settings)(media(filled))
    before = {each.key: filled.storage.read(each.key) for each in first.streams}
    torch.set_num_threads(2)
    (again,) = opened(filled, settings)(media(filled))
    assert torch.get_num_threads() == 2
    assert again == first
    assert {each.key: filled.storage.read(each.key) for each in again.streams} == before
    alone = settings.model_copy(update={"streams": settings.streams[:1]})
    (only,) = opened(filled, alone)(media(filled))
    assert only.streams == [first.streams[1]]
    assert filled.storage.read(only.streams[0].key) == before[only.streams[0].key]
    for stored in first.objects():
        filled.storage.check(stored)


def test_videos_that_cannot_be_looked_at(filled: Root, settings: FeaturesSettings) -> None:
    stage, row = opened(filled, settings), media(filled)
    with pytest.raises(Skip) as skipped:
        stage(row.model_copy(update={"width": 0}))
    assert skipped.value.reason == "no_picture"
    data = filled.storage.read(row.key)
    filled.storage.put_bytes(data[:-1] + b"x", row.key)
    with pytest.raises(Permanent, match="not the bytes that its row says"):
        stage(row)
    cut = data[: len(data) // 2]
    filled.storage.put_bytes(cut, row.key)
    with pytest.raises(Permanent) as corrupt:
        stage(row.model_copy(update={"sha256": hashlib.sha256(cut).hexdigest(), "bytes": len(cut)}))
    assert corrupt.value.reason == "corrupt_proxy"
    filled.storage.remove(row.key)
    with pytest.raises(Permanent, match="missing"):
        stage(row)
    assert [key for key in filled.storage.list("media") if key.endswith(".npy")] == []


def test_values_that_float16_cannot_hold_are_not_stored(filled: Root, settings: FeaturesSettings) -> None:
    tiny = settings.streams[1].model_copy(update={"std": (1e-7, 1, 1)})
    stage = opened(filled, settings.model_copy(update={"streams": [tiny]}))
    with pytest.raises(Permanent) as failed:
        stage(media(filled))
    assert failed.value.reason == "not_finite"


def test_a_root_has_features_of_one_kind(filled: Root, settings: FeaturesSettings) -> None:
    stage = opened(filled, settings)
    put(filled, list(stage(media(filled))), stage.name)
    opened(filled, settings)
    denser = settings.streams[1].model_copy(update={"fps": 2.0})
    with pytest.raises(ConfigError, match=r"2d: onnx .* at 1 rows a second there, onnx .* at 2 rows a second here"):
        opened(filled, settings.model_copy(update={"streams": [settings.streams[0], denser]}))
    with pytest.raises(ConfigError, match=r"2d: onnx .* there, nothing here"):
        opened(filled, settings.model_copy(update={"streams": settings.streams[:1]}))


def test_a_machine_with_other_weights_is_refused(filled: Root, settings: FeaturesSettings, tmp_path: Path) -> None:
    """A worker gets the stage as the driver had it, and finds the files of its own machine."""
    model = tmp_path / "means.onnx"
    model.write_bytes(MEANS)
    own = settings.streams[1].model_copy(update={"model": str(model), "size": None})
    stage = MakeFeatures(filled, settings.model_copy(update={"streams": [own]}))
    stage.check()
    sent = pickle.dumps(stage)
    pickle.loads(sent).open()
    model.write_bytes(MEANS_OF_ONE)
    with pytest.raises(ConfigError, match="a worker's machine has other models"):
        pickle.loads(sent).open()


def test_a_model_that_cannot_look_so_is_refused_before_any_video(
    filled: Root, settings: FeaturesSettings, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    vit = StreamSettings(name="2d", fps=1, kind="transformers", model=str(tmp_path))
    opened(filled, settings.model_copy(update={"streams": [vit]}))
    larger = vit.model_copy(update={"size": 40})
    with pytest.raises(ConfigError, match=r"stream 2d: .* cannot look at 40 of 40 px \(.*32.*\); give it another size"):
        opened(filled, settings.model_copy(update={"streams": [larger]}))


def test_cuda_is_asked_for_where_there_is_none(filled: Root, settings: FeaturesSettings) -> None:
    on_cuda = MakeFeatures(filled, settings.model_copy(update={"device": "cuda"}))
    assert (on_cuda.resources.gpus, MakeFeatures(filled, settings).resources.gpus) == (1, 0)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="take cpu"):
            on_cuda.open()


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_settled_where_the_run_begins(
    there: bool, filled: Root, settings: FeaturesSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without a GPU of its own takes none, whatever it sees; one that was promised one says if it has none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    stage = MakeFeatures(filled, settings.model_copy(update={"device": "auto"}))
    assert stage.resources.gpus == there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not there)
    on_worker = pickle.loads(pickle.dumps(stage))
    if there:
        with pytest.raises(ConfigError, match="take cpu"):
            on_worker.open()
    else:
        on_worker.open()
        assert on_worker(media(filled))


def test_from_the_stage_to_a_step_of_training(filled: Root, settings: FeaturesSettings) -> None:
    """A narration is paired with the colour that is shown while it is said."""
    stage = opened(filled, settings)
    for row in filled.table(Media).rows():
        outcome = attempt(stage, row)
        assert isinstance(outcome, Done)
        put(filled, list(stage(row)), stage.name, made_from=row.video_id)
    times = {"red": 1.0, "green": 4.0, "blue": 7.0}
    put(filled, [Lab.narration("site:rgb", start, start + 1, name) for name, start in times.items()], "align")
    put(filled, [Lab.narration("site:white", 4.0, 5.0, "white")], "align")
    shard = ShardSettings(export="rows", kind="features", min_window=2.0, val=0, test=0)
    make = MakeShards(filled, shard)
    make.begin()
    for plan in make.inputs(make.input_keys().to_pylist()):
        put(filled, list(make(plan)), "shard", made_from=make.key(plan))
    make.end()
    reader = ClipReader(f"{filled.url}/shards/rows", settings=ReaderSettings(pairs=3), seed=0)
    clips: dict[str, Any] = {clip["video_id"]: clip for clip in reader}
    assert sorted(clips) == ["site:rgb", "site:white"]
    rgb = clips["site:rgb"]
    assert sorted(rgb["narrations"]) == sorted(times)
    for text, numbers in zip(rgb["narrations"], rgb["features"], strict=True):
        assert int(numbers[:3].argmax()) == list(times).index(text)
        assert numbers[:3].norm() == pytest.approx(1, abs=1e-3)
        assert numbers[3:].norm() == pytest.approx(1, abs=1e-3)
    assert clips["site:white"]["narrations"] == ["white"] * 3
    assert make_clip(next(reader.raw()), ReaderSettings(pairs=5), "0")["features"].shape[0] == 5
