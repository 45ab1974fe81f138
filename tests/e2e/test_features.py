"""Features of videos, from fetched proxies to tars that webdataset reads, through the command."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import yaml

from sayso.root import Root
from sayso.rows import Features, Narration, Shard
from tests.films import MEANS, random_model

Command = Callable[..., Any]
# webdataset leaves the tar that it reads to the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small models, and an export of what they see."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "means.onnx").write_bytes(MEANS)
    streams = [
        {"name": "2d", "fps": 1.0, "kind": "onnx", "model": str(folder / "means.onnx"), "size": 64},
        {"name": "3d", "fps": 1.5, "kind": "s3d", "model": str(random_model(folder / "s3d"))},
    ]
    shard = {"export": "rows", "kind": "features", "min_window": 10.0, "val": 0, "test": 0}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"features": {"streams": streams, "device": "cpu"}, "shard": shard}))
    return path


def test_features_are_computed_planned_and_read(
    sayso: Command, undisturbed: Path, config: Path, tmp_path: Path
) -> None:
    at = tmp_path / "root"
    shutil.copytree(undisturbed, at)
    arguments = ["--root", at, "--config", config, "--json"]
    ran = sayso("run", *arguments)
    assert ran.code == 0, ran.err
    stages = {stage["name"]: stage for stage in ran.json()["stages"]}
    assert list(stages) == ["discover", "fetch", "transcribe", "captions", "align", "features", "shard"]
    assert (stages["features"]["done"], stages["features"]["failed"]) == (4, {})
    assert stages["features"]["x_realtime"] > 0

    root = Root(str(at)).open()
    kept = [row for row in root.table(Narration).rows() if row.kept]
    rows = {row.video_id: row.streams for row in root.table(Features).rows()}
    found: list[dict[str, Any]] = []
    for shard in root.table(Shard).rows(export="rows"):
        found += webdataset.WebDataset(root.storage.path(shard.key), shardshuffle=False).decode()
    gc.collect()
    assert {sample["json"]["video_id"] for sample in found} == {row.video_id for row in kept} == rows.keys()
    for sample in found:
        said = [each["narration_id"] for each in sample["json"]["candidates"]]
        own = sorted((row for row in kept if row.video_id == sample["json"]["video_id"]), key=lambda row: row.start)
        assert said == [row.narration_id for row in own]
        for stream in rows[sample["json"]["video_id"]]:
            assert sample[f"{stream.name}.npy"].shape == (len(said), stream.dim)
            assert sample[f"{stream.name}.npy"].dtype == np.float16

    before = {key: root.storage.read(key) for key in root.storage.list("media") if key.endswith(".npy")}
    assert len(before) == 8
    checked = sayso("verify", "--root", at, "--json")
    assert (checked.code, checked.json()["problems"]) == (0, [])
    again = sayso("replay", "features", sorted(rows)[0], "--root", at, "--json")
    assert again.code == 0, again.err
    assert {key: root.storage.read(key) for key in before} == before


def test_without_a_model_the_stage_says_what_to_give(sayso: Command, undisturbed: Path, tmp_path: Path) -> None:
    configured = (undisturbed / "pipeline.yaml").read_bytes()
    ran = sayso("features", "--root", undisturbed)
    assert ran.code == 2
    (line,) = [line for line in ran.err.splitlines() if line.startswith("sayso: ")]
    assert "features.streams: no stream has a model; give one" in line
    nowhere = "features.streams=[{name: 3d, fps: 1.5, kind: s3d, model: /no/such.pth}]"
    ran = sayso("features", "--root", undisturbed, nowhere)
    assert ran.code == 2
    assert "sayso: stream 3d: no /no/such.pth; give a file of S3D weights" in ran.err
    assert "Traceback" not in ran.err
    assert (undisturbed / "pipeline.yaml").read_bytes() == configured
