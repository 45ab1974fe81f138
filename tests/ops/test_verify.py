"""Damage of every kind: verify names it, or everything that is read from the root is as it was."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from ops.pipeline import Pipeline, keep_configuration
from ops.verify import Verified, verify
from sayso.compaction import compact
from sayso.errors import SaysoError
from sayso.rewrite import cut_log
from sayso.root import Root
from sayso.rows import TABLES, Run, Transcript, Video
from shards.settings import ShardSettings
from tests.made import failure
from tests.shards.conftest import Lab

IDS = ["site:a", "site:b", "site:c"]
SETTINGS = ShardSettings(samples_per_shard=2, val=0.2, test=0.2)
ROUNDS = 100


def fill(root: Root, folder: Path) -> Root:
    """Something of everything that a root may hold: compacted tables and others, three videos, shards, settings."""
    proxy = folder / "proxy.mp4"
    Lab.make_proxy(proxy, 4)
    Lab.add_videos(root, IDS, proxy.read_bytes(), 4)
    for video in IDS:
        Lab.append(root, [Transcript(video_id=video, source="asr:tiny", language="en", speech_seconds=1, spans=[])])
        Lab.append(root, [failure(video, "skip", "no_captions", stage="captions")])
    keep_configuration(root, Pipeline(shard=SETTINGS), "one")
    figures = {"total": 3, "done": 3, "failed": 0, "in_flight": 0, "rows_per_second": 1.0, "video_seconds": 1.0}
    speeds = {"video_seconds_per_second": 1.0, "bytes_per_second": 1.0, "elapsed": 1.0}
    Lab.append(root, [Run(run_id="one", stage="fetch", **figures, **speeds)])
    for version in range(2):
        compact(DeltaTable(root.table(Transcript).url), 1 << 20)
        Lab.append(root, [failure(f"later{version}", "skip", "no_captions", stage="captions")])
    # One whose log begins with a checkpoint, and goes on.
    cut_log(root, Video)
    Lab.append(root, [Video(video_id=video, url="u") for video in ("site:d", "site:e")])
    Lab.make_shards(root, SETTINGS)
    return root


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Root:
    folder = tmp_path_factory.mktemp("filled")
    return fill(Root(str(folder / "root")).create(), folder)


def everything(root: Root) -> dict[str, Any]:
    """All that anybody reads of a root: the rows of all tables, and the bytes of all objects but the tables'."""
    rows = {model.table: sorted(map(repr, root.table(model).read().to_pylist())) for model in TABLES}
    objects = {key: root.storage.read(key) for key in root.storage.list("media") + root.storage.list("shards")}
    settings = {key: root.storage.read(key) for key in ("sayso.json", "pipeline.yaml", "runs/one.yaml")}
    return {**rows, **objects, **settings}


def unchanged(root: Root, whole: dict[str, Any]) -> bool:
    try:
        return everything(root) == whole
    except SaysoError:
        return False


def damage(path: Path, dice: random.Random) -> str:
    """Flip a bit, cut the end off, or take the file away."""
    data = bytearray(path.read_bytes())
    kind = dice.choice(["flip", "flip", "flip", "truncate", "remove"]) if data else "remove"
    if kind == "remove":
        path.unlink()
        return kind
    place = dice.randrange(len(data))
    if kind == "truncate":
        # Also just behind a line, where what is left has a form.
        ends = [at for at, byte in enumerate(data) if byte == ord("\n")]
        place = dice.choice(ends) if ends and dice.random() < 0.5 else place
        del data[place:]
    else:
        data[place] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(data))
    return f"{kind} at {place}"


def named(before: Verified, after: Verified) -> bool:
    return bool(after.problems) or after.extra != before.extra


def test_a_whole_root_is_whole(filled: Root) -> None:
    found = verify(filled)
    assert found.problems == []
    assert found.extra == []
    assert found.objects == 3 + 2 * found_shards(filled)
    assert found.rows == sum(filled.table(model).read().num_rows for model in TABLES)


def found_shards(root: Root) -> int:
    return len([key for key in root.storage.list("shards") if key.endswith(".tar")])


def test_no_damage_goes_unseen(filled: Root, tmp_path: Path) -> None:
    named = fuzz(filled, tmp_path, random.Random(1), ROUNDS)
    assert named > 0.7 * ROUNDS, "most bits of a root do matter"


def fuzz(root: Root, folder: Path, dice: random.Random, rounds: int) -> int:
    """Damage one file a round; how many times it was named."""
    base = Path(root.url)
    before, whole = verify(root), everything(root)
    files = sorted(path for path in base.rglob("*") if path.is_file())
    kept = folder / "kept"
    count = 0
    for number in range(rounds):
        # Tables' logs are few bytes beside the media: chosen by file, not by byte.
        path = dice.choice(files)
        shutil.copy2(path, kept)
        done = damage(path, dice)
        try:
            seen = named(before, verify(root))
            assert seen or unchanged(root, whole), f"round {number}: {done} of {path.relative_to(base)} is not seen"
            count += seen
        finally:
            shutil.move(kept, path)
    assert not named(before, verify(root))
    return count


def test_a_row_count_that_is_not_the_files_is_named(filled: Root, tmp_path: Path) -> None:
    copy = Root(shutil.copytree(filled.url, tmp_path / "root").as_posix())
    entry = sorted(Path(copy.url, "tables/videos/_delta_log").glob("*.json"))[-1]
    entry.write_text(entry.read_text().replace('\\"numRecords\\": 2', '\\"numRecords\\": 4'))
    assert "2 rows, the log says 4" in "".join(verify(copy).problems)
    lines = [json.loads(line) for line in entry.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["commitInfo", "add"]
