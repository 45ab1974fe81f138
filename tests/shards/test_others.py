"""Other people's readers of WebDataset tars read our shards: every sample, its key, its JSON and its bytes.

That webdataset's own does is in test_stage.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sayso.root import Root
from shards.settings import ShardSettings
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

PYTHON = REPOSITORY / ".venv-others" / "bin" / "python"


@pytest.fixture(scope="module")
def tars(lab: Lab, proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """18 samples in two tars."""
    root = Root(str(tmp_path_factory.mktemp("others"))).create()
    lab.add_videos(root, [f"site:v{number}" for number in range(3)], proxy.read_bytes(), 12)
    shards = lab.make_shards(root, ShardSettings(samples_per_shard=12, val=0, test=0))
    assert len(shards) == 2
    return sorted(root.storage.path(shard.key) for shard in shards)


@pytest.fixture(scope="module")
def written(tars: list[str]) -> dict[str, list[Any]]:
    """By key the SHA-256 of the clip and the facts, as the tars hold them."""
    found: dict[str, dict[str, bytes]] = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member)
                assert file
                found.setdefault(key, {})[extension] = file.read()
    assert len(found) == 18
    return {key: [hashlib.sha256(files["mp4"]).hexdigest(), json.loads(files["json"])] for key, files in found.items()}


@pytest.mark.parametrize("reader", ["datasets", "ray"])
def test_others_read_our_shards(reader: str, tars: list[str], written: dict[str, list[Any]], tmp_path: Path) -> None:
    assert PYTHON.exists(), "other people's readers are not installed: make .venv-others/ready"
    environment = {**os.environ, "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(PYTHON), str(REPOSITORY / "tests" / "others.py"), reader, str(tmp_path), *tars]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=200)
    # Ray greets on stdout.
    assert json.loads(done.stdout.splitlines()[-1]) == written
