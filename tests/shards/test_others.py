"""Other people's readers of WebDataset tars read our shards: every sample, its key, its JSON and its bytes.

That webdataset's own does is in test_stage.py.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest
import ray
import ray.data

from sayso.root import Root
from shards.plan import ShardSettings

if TYPE_CHECKING:
    from tests.shards.conftest import Lab


@pytest.fixture(scope="module")
def tars(lab: Lab, proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """18 samples in two tars."""
    root = Root(str(tmp_path_factory.mktemp("others"))).create()
    lab.add_videos(root, [f"site:v{number}" for number in range(3)], proxy.read_bytes(), 12)
    shards = lab.make_shards(root, ShardSettings(samples_per_shard=12, val=0, test=0))
    assert len(shards) == 2
    return sorted(root.storage.path(shard.key) for shard in shards)


@pytest.fixture(scope="module")
def written(tars: list[str]) -> dict[str, tuple[bytes, Any]]:
    """By key the clip and the facts, as the tars hold them."""
    found: dict[str, dict[str, bytes]] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member)
                assert file
                found.setdefault(key, {})[extension] = file.read()
    assert len(found) == 18
    return {key: (files["mp4"], json.loads(files["json"])) for key, files in found.items()}


def test_hugging_face_datasets(tars: list[str], written: dict[str, tuple[bytes, Any]], tmp_path: Path) -> None:
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": tars}, split="train", cache_dir=str(tmp_path), streaming=True
    )
    loaded = loaded.cast_column("mp4", datasets.Video(decode=False))
    samples = {sample["__key__"]: (sample["mp4"]["bytes"], sample["json"]) for sample in loaded}
    assert samples.keys() == written.keys()
    for key, (clip, facts) in written.items():
        assert samples[key][0] == clip
        assert plain(samples[key][1]) == facts


def plain(facts: Any) -> Any:
    """Facts as they are compared."""
    return json.loads(facts) if isinstance(facts, str | bytes) else facts


@pytest.fixture
def little_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


# Ray sets its own deprecated defaults.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
def test_ray_data(tars: list[str], written: dict[str, tuple[bytes, Any]], little_ray: None) -> None:
    rows = ray.data.read_webdataset(tars).take_all()
    assert {row["__key__"] for row in rows} == written.keys()
    for row in rows:
        clip, facts = written[row["__key__"]]
        data = row["mp4"]
        assert (data if isinstance(data, bytes) else io.BytesIO(data).getvalue()) == clip
        assert plain(row["json"]) == facts
