"""Shards as they are published: the same bytes again, plain tars, and honest about proxies that are not whole."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from sayso.errors import InputError, Permanent
from sayso.root import Root
from sayso.rows import Plan
from shards.manifest import publish_manifest
from shards.plan import plan_export
from shards.settings import ShardSettings
from shards.stage import MakeShards
from shards.verify import verify_shard

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

SETTINGS = ShardSettings(samples_per_shard=16, val=0.25, test=0.25)
IDS = [f"site:v{number}" for number in range(8)]


def published(root: Root) -> dict[str, bytes]:
    return {key: root.storage.read(key) for key in root.storage.list("shards")}


def test_shards_made_twice_have_the_same_bytes(lab: Lab, proxy: Path, tmp_path: Path) -> None:
    objects = []
    for name, ids in (("a", IDS), ("b", IDS[::-1])):
        root = Root(str(tmp_path / name)).create()
        lab.add_videos(root, ids, proxy.read_bytes(), 12)
        lab.make_shards(root, SETTINGS)
        objects.append(published(root))
    assert objects[0] == objects[1]
    assert len([key for key in objects[0] if key.endswith(".tar")]) >= 3


def test_rows_vouch_for_what_was_published(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS, proxy.read_bytes(), 12)
    shards = lab.make_shards(root, SETTINGS)
    for shard in shards:
        assert verify_shard(root, shard) == []
        for stored in shard.objects():
            root.storage.check(stored)
    assert sum(shard.samples for shard in shards) == 48
    assert {shard.split for shard in shards} == {"train", "val", "test"}


def test_the_tar_is_plain_and_tells_all_about_a_sample(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS[:1], proxy.read_bytes(), 12)
    (shard,) = lab.make_shards(root, SETTINGS)
    with tarfile.open(root.storage.path(shard.key)) as tar:
        members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
        clip, facts = (file.read() for m in members[:2] if (file := tar.extractfile(m)))
    said = json.loads(facts)
    assert said["video_id"] == IDS[0]
    assert said["text"] == said["candidates"][0]["text"]
    assert (said["language"], said["task_id"]) == ("en", "tyre")
    assert said["clip_start"] <= said["start"] < said["end"] <= said["clip_end"]
    assert len(said["candidates"]) == 6
    assert lab.seen(clip)[0][1] == round(said["clip_start"] * 10)


def test_the_index_finds_every_member(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS, proxy.read_bytes(), 12)
    shard = lab.make_shards(root, SETTINGS)[0]
    index = pq.read_table(pa.BufferReader(root.storage.read(shard.index_key))).to_pylist()
    tar = root.storage.read(shard.key)
    for row in index:
        assert [member["extension"] for member in row["members"]] == ["mp4", "json"]
        files = [tar[member["offset"] : member["offset"] + member["bytes"]] for member in row["members"]]
        assert tar[row["offset"] : row["offset"] + row["bytes"]].startswith(files[0])
        said = json.loads(files[1])
        assert {
            name: row[name] for name in ("video_id", "start", "end", "clip_start", "clip_end")
        }.items() <= said.items()
        with av.open(io.BytesIO(files[0]), "r") as container:
            assert container.streams.video[0].frames > 0


# webdataset leaves the tar that it reads to the garbage collector to close.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_our_shards(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS, proxy.read_bytes(), 12)
    shard = lab.make_shards(root, SETTINGS)[0]
    plan = next(plan for plan in root.table(Plan).rows() if plan.shard == shard.shard)
    samples = list(webdataset.WebDataset(root.storage.path(shard.key), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [sample.key for sample in plan.samples]
    assert [sample["json"]["text"] for sample in samples] == [sample.candidates[0].text for sample in plan.samples]
    assert all(lab.seen(sample["mp4"]) for sample in samples[:2])
    gc.collect()


@pytest.mark.parametrize("damage", ["flipped", "missing", "cut"])
def test_a_proxy_that_is_not_whole_is_named(lab: Lab, root: Root, proxy: Path, damage: str) -> None:
    data = bytearray(proxy.read_bytes())
    lab.add_videos(root, IDS[:1], bytes(data), 12)
    plan_export(root, SETTINGS)
    key = f"media/{IDS[0]}/proxy.mp4"
    if damage == "missing":
        root.storage.remove(key)
    else:
        data[2000] ^= 1
        root.storage.put_bytes(bytes(data if damage == "flipped" else data[:-9]), key)
    stage = MakeShards(root, SETTINGS)
    with pytest.raises(Permanent, match=key) as caught:
        stage(next(iter(stage.inputs(stage.input_keys().to_pylist()))))
    assert caught.value.reason == "corrupt_proxy"
    assert not [name for name in root.storage.list("shards") if name.endswith(".tar")]


def test_a_flipped_byte_anywhere_in_a_tar_is_found(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS[:1], proxy.read_bytes(), 12)
    (shard,) = lab.make_shards(root, SETTINGS)
    whole = root.storage.read(shard.key)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        clip, facts = tar.getmembers()[:2]
    for place in (0, clip.offset_data + clip.size // 2, facts.offset + 3, facts.offset_data + 5):
        broken = bytearray(whole)
        broken[place] ^= 1
        root.storage.put_bytes(bytes(broken), shard.key)
        assert verify_shard(root, shard)
    root.storage.put_bytes(whole[: len(whole) // 2], shard.key)
    assert verify_shard(root, shard)
    root.storage.remove(shard.key)
    assert verify_shard(root, shard)


def test_the_stage_keeps_to_its_export_and_to_the_keys_asked_for(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS, proxy.read_bytes(), 12)
    small = SETTINGS.model_copy(update={"export": "clips-small", "samples_per_shard": 4})
    stages = [MakeShards(root, SETTINGS), MakeShards(root, small)]
    for stage in stages:
        assert len(stage.input_keys()) == 0
        stage.begin()
    keys = [stage.input_keys().to_pylist() for stage in stages]
    planned = {f"{plan.export}/{plan.shard}" for plan in root.table(Plan).rows()}
    assert sorted(keys[0] + keys[1]) == sorted(planned)
    for stage, own in zip(stages, keys, strict=True):
        assert all(key.startswith(f"{stage.settings.export}/") for key in own)
        asked = own[::2]
        assert {stage.key(plan) for plan in stage.inputs([*keys[0], *keys[1], "other/train-000000"])} == set(own)
        assert {stage.key(plan) for plan in stage.inputs([*asked, f"{stage.settings.export}/gone"])} == set(asked)
        assert list(stage.inputs([])) == []


def test_there_is_a_manifest_as_soon_as_there_are_shards(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS[:2], proxy.read_bytes(), 12)
    stage = MakeShards(root, SETTINGS)
    stage.begin()
    stage.end()
    assert not [key for key in root.storage.list("shards") if "manifest" in key]
    made = lab.make_shards(root, SETTINGS)
    manifest = root.storage.read("shards/clips/manifest.parquet")
    assert pq.read_table(io.BytesIO(manifest))["shard"].to_pylist() == sorted(shard.shard for shard in made)
    # As after a run that was killed between its last shard and the manifest.
    root.storage.remove("shards/clips/manifest.parquet")
    assert lab.make_shards(root, SETTINGS) == []
    assert root.storage.read("shards/clips/manifest.parquet") == manifest


def test_the_manifest_counts_the_export(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS, proxy.read_bytes(), 12)
    shards = lab.make_shards(root, SETTINGS)
    summary = json.loads(root.storage.read("shards/clips/manifest.json"))
    assert sum(split["samples"] for split in summary["splits"].values()) == 48
    assert sum(split["videos"] for split in summary["splits"].values()) == len(IDS)
    table = pq.read_table(io.BytesIO(root.storage.read("shards/clips/manifest.parquet")))
    assert {entry.hex() for entry in table["sha256"].to_pylist()} == {shard.sha256 for shard in shards}
    assert {entry.hex() for entry in table["index_sha256"].to_pylist()} == {shard.index_sha256 for shard in shards}
    for entry in table.to_pylist():
        assert entry["bytes"] == root.storage.size(f"shards/clips/{entry['shard']}.tar")
        assert entry["index_bytes"] == root.storage.size(f"shards/clips/{entry['shard']}.index.parquet")
        assert entry["shared"] == []


def test_the_manifest_names_videos_that_lie_in_several_shards(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS[:1], proxy.read_bytes(), 12)
    lab.make_shards(root, SETTINGS.model_copy(update={"samples_per_shard": 4}))
    table = pq.read_table(io.BytesIO(root.storage.read("shards/clips/manifest.parquet")))
    assert [name.rpartition("-")[2] for name in table["shard"].to_pylist()] == ["000000", "000001"]
    assert table["shared"].to_pylist() == [[{"place": 0, "samples": samples, "number": 0}] for samples in (4, 2)]


def test_a_split_of_other_content_has_another_digest(lab: Lab, proxy: Path, tmp_path: Path) -> None:
    digests = set()
    for ids in (IDS[:1], IDS[1:2], IDS[:2]):
        root = Root(str(tmp_path / "-".join(ids))).create()
        lab.add_videos(root, ids, proxy.read_bytes(), 12)
        lab.make_shards(root, ShardSettings(val=0, test=0))
        digests.add(json.loads(root.storage.read("shards/clips/manifest.json"))["splits"]["train"]["digest"])
    assert len(digests) == 3


def test_an_export_without_shards_has_no_manifest(root: Root) -> None:
    with pytest.raises(InputError, match="no shards"):
        publish_manifest(root, "clips")
