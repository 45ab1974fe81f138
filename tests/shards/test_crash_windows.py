"""Killed at each point of planning and of publishing a shard: nothing half done, and the next run ends as it should.

The processes that die are in tests/crashes.py; docs/reliability.md lists the windows.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from sayso.root import Root
from sayso.rows import Plan, Shard, Video
from sayso.storage import PARTIAL
from shards.plan import left_out
from shards.stage import MakeShards
from tests.conftest import REPOSITORY, S3
from tests.contents import content_hash
from tests.crashes import SHARD_SETTINGS, work

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

IDS = [f"site:v{number}" for number in range(6)]
MANIFEST = "shards/clips/manifest.parquet"


def crash(window: str, root: Root) -> None:
    """Let a process die while it plans or makes the shards of a root."""
    command = [sys.executable, "-m", "tests.crashes", window, "shards", root.url]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ran.returncode == -signal.SIGKILL, ran.stdout + ran.stderr


def fill(root: Root, lab: Lab, proxy: Path) -> Root:
    """Six videos, and one that is a copy of another."""
    data = proxy.read_bytes()
    lab.add_videos(root, IDS, data, 12)
    root.storage.put_bytes(data, "media/site:w/proxy.mp4")
    lab.append(root, [Video(video_id="site:w", url="file:///w")])
    lab.append(root, [lab.media_row("site:w", data, 12, source=IDS[0])])
    lab.append(root, [lab.narration("site:w", 0.25, 1.5)])
    return root


def contents(root: Root) -> dict[str, str]:
    """All that the stage makes: plans, rows, tars, indexes, settings, manifest, and what is left out."""
    said = [key for key in root.storage.list("shards") if key.endswith((".json", "manifest.parquet"))]
    objects = {key: root.storage.read(key).hex() for key in said}
    return {**content_hash(root), **objects, "left out": repr(sorted(left_out(root)))}


@pytest.fixture(scope="module")
def undisturbed(lab: Lab, proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The contents of a root that nobody disturbed."""
    root = fill(Root(str(tmp_path_factory.mktemp("undisturbed") / "root")).create(), lab, proxy)
    work(MakeShards(root, SHARD_SETTINGS))
    found = contents(root)
    assert (len(root.table(Shard).keys()), found["left out"]) == (6, "['site:w']")
    assert sum(key.endswith((".json", "manifest.parquet")) for key in found) == 3
    return found


@dataclass(frozen=True)
class Left:
    """What a killed process leaves: objects under the export by their endings, and of tables what is there."""

    objects: dict[str, int]
    plans: int = 6
    copies: int = 1
    rows: int = 0
    partial: int = 0


SETTINGS_ONLY = {"export.json": 1}
WHOLE = {"export.json": 1, "tar": 6, "index.parquet": 6}
LEFT = {
    "half of the settings": Left({}, plans=0, copies=0, partial=1),
    "between settings and plans": Left(SETTINGS_ONLY, plans=0, copies=0),
    "between plans and copies": Left(SETTINGS_ONLY, copies=0),
    "half of the tar": Left(SETTINGS_ONLY, partial=1),
    "between tar and index": Left({**SETTINGS_ONLY, "tar": 1}),
    "between index and row": Left({**SETTINGS_ONLY, "tar": 1, "index.parquet": 1}),
    "before the manifest": Left({**WHOLE, "manifest.json": 1}, rows=6),
    "half of the manifest": Left({**WHOLE, "manifest.json": 1}, rows=6, partial=1),
}


def check_left(root: Root, left: Left) -> None:
    keys = root.storage.list("shards")
    endings = ("export.json", "tar", "index.parquet", "manifest.json", "manifest.parquet")
    found = {ending: sum(key.endswith(ending) for key in keys) for ending in endings}
    assert {ending: number for ending, number in found.items() if number} == left.objects
    tables = [len(root.table(model).keys()) for model in (Plan, Shard)]
    assert (*tables, len(left_out(root))) == (left.plans, left.rows, left.copies)


@pytest.mark.parametrize("window", LEFT)
def test_a_killed_export_is_gone_on_with(
    window: str, lab: Lab, proxy: Path, root: Root, undisturbed: dict[str, str]
) -> None:
    fill(root, lab, proxy)
    crash(window, root)
    check_left(root, LEFT[window])
    assert sum(PARTIAL in path.name for path in Path(root.url).rglob("*")) == LEFT[window].partial
    work(MakeShards(root, SHARD_SETTINGS))
    assert contents(root) == undisturbed


@pytest.mark.parametrize("window", ["between tar and index", "between index and row", "before the manifest"])
def test_a_killed_export_on_s3_is_gone_on_with(
    window: str, lab: Lab, proxy: Path, s3: S3, undisturbed: dict[str, str]
) -> None:
    root = fill(Root(s3.url("export")).create(), lab, proxy)
    crash(window, root)
    check_left(root, LEFT[window])
    work(MakeShards(root, SHARD_SETTINGS))
    assert contents(root) == undisturbed


def test_killed_while_a_manifest_is_replaced_the_old_one_stays_whole(lab: Lab, proxy: Path, root: Root) -> None:
    fill(root, lab, proxy)
    work(MakeShards(root, SHARD_SETTINGS))
    before = root.storage.read(MANIFEST)
    lab.add_videos(root, ["site:later"], proxy.read_bytes(), 12)
    crash("half of the manifest", root)
    assert root.storage.read(MANIFEST) == before
    work(MakeShards(root, SHARD_SETTINGS))
    listed = pq.read_table(io.BytesIO(root.storage.read(MANIFEST)))["shard"].to_pylist()
    assert len(listed) == len(set(listed)) == 7
