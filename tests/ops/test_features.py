"""Features among all that a root holds: forgotten, verified, mended, and a stage where the configuration says so."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ops.forget import forget
from ops.pipeline import Pipeline, describe, keep_configuration, load_pipeline, stages_of
from ops.repair import repair
from ops.scan import Names
from ops.verify import verify
from sayso.errors import ConfigError
from sayso.root import Root
from sayso.rows import Features, Media, Plan, Shard
from tests.contents import content_hash
from tests.films import MEANS
from tests.made import put
from tests.shards.conftest import Lab
from train.features.stage import MakeFeatures

IDS = ["site:v1", "site:v10", "site:v2"]
MODEL = "features.streams=[{name: 2d, fps: 1, kind: onnx, model: MODEL, size: 40}]"


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    model = tmp_path_factory.mktemp("model") / "means.onnx"
    model.write_bytes(MEANS)
    shard = ["shard.export=rows", "shard.kind=features", "shard.samples_per_shard=2", "shard.val=0", "shard.test=0"]
    return load_pipeline(None, [MODEL.replace("MODEL", str(model)), *shard], [])


@pytest.fixture(scope="module")
def made(configured: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Three videos with features, and an export of them."""
    folder = tmp_path_factory.mktemp("made")
    Lab.make_proxy(folder / "proxy.mp4", 4)
    root = Root(str(folder / "root")).create()
    Lab.add_videos(root, IDS, (folder / "proxy.mp4").read_bytes(), 4)
    stage = MakeFeatures(root, configured.features)
    stage.open()
    for row in root.table(Media).rows():
        put(root, list(stage(row)), stage.name)
    Lab.make_shards(root, configured.shard)
    keep_configuration(root, configured, "one")
    return root


@pytest.fixture
def copy(made: Root, tmp_path: Path) -> Root:
    return Root(shutil.copytree(made.url, tmp_path / "copy").as_posix())


def everything(root: Root) -> dict[str, Any]:
    objects = {key: root.storage.read(key) for prefix in ("media", "shards") for key in root.storage.list(prefix)}
    rows = sorted(map(repr, root.table(Features).rows()))
    return {**content_hash(root), **objects, "features": rows}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(bytes(data))


def test_features_are_a_stage_where_streams_have_models(made: Root, configured: Pipeline) -> None:
    assert [stage.name for stage in stages_of(made, Pipeline())] == [
        "fetch",
        "transcribe",
        "captions",
        "align",
        "shard",
    ]
    assert [stage.name for stage in stages_of(made)][-2:] == ["features", "shard"]
    (would,) = describe(configured, made.url, ["features"])["would"]
    assert (would["stage"], would["done"], would["pending"]) == ("features", 3, 0)
    with pytest.raises(ConfigError, match=r"features\.streams: no stream has a model; give one"):
        describe(Pipeline(), made.url, ["features"])


@pytest.mark.parametrize("how", [flip, Path.unlink], ids=["flipped", "missing"])
def test_damaged_features_are_found_and_made_again(how: Any, copy: Root) -> None:
    assert (verify(copy).problems, verify(copy).extra) == ([], [])
    before = everything(copy)
    key = "media/site:v10/features/2d.npy"
    how(Path(copy.storage.path(key)))
    (problem,) = verify(copy).problems
    assert problem.startswith(f"{key}: ")
    done = repair(copy)
    assert (done.mended, done.not_mended, done.verified.problems) == (["features site:v10"], [], [])
    assert everything(copy) == before


def test_shards_are_made_of_features_that_were_mended_first(copy: Root) -> None:
    before = everything(copy)
    for key in [*copy.storage.list("media"), *copy.storage.list("shards")]:
        if key.endswith((".npy", ".tar")):
            copy.storage.remove(key)
    done = repair(copy)
    assert (done.not_mended, done.verified.problems) == ([], [])
    assert everything(copy) == before


def test_features_whose_models_nobody_knows_any_more_are_named(copy: Root) -> None:
    keep_configuration(copy, Pipeline(), "two")
    flip(Path(copy.storage.path("media/site:v2/features/2d.npy")))
    done = repair(copy)
    assert done.mended == []
    assert [line for line in done.not_mended if line.startswith("features site:v2: ") and "`sayso features`" in line]
    assert done.verified.problems


def test_rows_of_a_broken_file_are_taken_out_and_made_by_the_next_run(copy: Root, configured: Pipeline) -> None:
    flip(sorted(Path(copy.url).glob("tables/features/*.parquet"))[0])
    done = repair(copy)
    assert done.not_mended == []
    assert len(list(copy.table(Features).rows())) == 2
    (would,) = describe(configured, copy.url, ["features"])["would"]
    assert would["pending"] == 1


def test_a_forgotten_videos_features_are_nowhere(copy: Root) -> None:
    before = members(copy)
    assert {name.partition("-")[0] for name in before} == {"site_v1", "site_v10", "site_v2"}
    foretold = forget(copy, ["site:v1"], dry_run=True)
    assert (foretold.rows["features"], foretold.samples, foretold.objects) == (1, 1, 2)
    done = forget(copy, ["site:v1"])
    assert done.proven
    assert (done.rows["features"], done.samples) == (1, 1)
    assert members(copy) == {name: data for name, data in before.items() if not name.startswith("site_v1-")}
    assert [key for key in copy.storage.list("media") if "site:v1/" in key] == []
    assert sorted(copy.table(Features).keys().to_pylist()) == ["site:v10", "site:v2"]
    planned = [sample.video_id for plan in copy.table(Plan).rows() for sample in plan.samples]
    assert sorted(planned) == ["site:v10", "site:v2"]
    assert verify(copy).problems == []


def members(root: Root) -> dict[str, bytes]:
    found = {}
    for shard in root.table(Shard).rows():
        with tarfile.open(root.storage.path(shard.key)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def test_a_member_that_is_named_after_a_video_is_found(made: Root) -> None:
    names = Names(["site:v1"])
    assert any(names.in_text(name) for name in members(made))
    assert not any(names.in_text(name) for name in members(made) if not name.startswith("site_v1-"))
