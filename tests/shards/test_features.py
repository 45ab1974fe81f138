"""Shards of features: planned, pooled, checked, read by others and by our reader."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import webdataset

from sayso.errors import ConfigError, Permanent
from sayso.root import Root
from sayso.rows import Features, FeatureStream, Plan, Shard
from shards.features import Rows, npy
from shards.plan import plan_export, propose, summarise
from shards.reader import ClipReader, ReaderSettings
from shards.settings import ShardSettings
from shards.stage import MakeShards
from shards.verify import verify_shard

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

IDS = [f"site:v{number}" for number in range(6)]
SECONDS = 12.0
STREAMS = {"2d": (1.0, 4), "3d": (1.5, 3)}
SETTINGS = ShardSettings(export="rows", kind="features", min_window=4.0, samples_per_shard=4, val=0, test=0)
# webdataset leaves the tar that it reads to the garbage collector to close.
quiet = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


def rows_of(video: str, name: str) -> Rows:
    """What a model might have made of a video."""
    fps, dim = STREAMS[name]
    generator = np.random.default_rng([*f"{video}{name}".encode()])
    return generator.normal(size=(round(SECONDS * fps), dim)).astype(np.float16)


def add_features(root: Root, lab: Lab, ids: Sequence[str]) -> None:
    found = []
    for video in ids:
        streams = []
        for name, (fps, dim) in STREAMS.items():
            rows = rows_of(video, name)
            stored = root.storage.put_bytes(npy(rows), f"media/{video}/features/{name}.npy")
            facts = {"name": name, "rows": len(rows), "dim": dim, "fps": fps, "model": "made up"}
            streams.append(FeatureStream(**stored.model_dump(), **facts))
        found.append(Features(video_id=video, streams=streams))
    lab.append(root, found)


@pytest.fixture
def filled(root: Root, lab: Lab) -> Root:
    lab.add_videos(root, IDS, b"proxy", SECONDS)
    add_features(root, lab, IDS)
    return root


def pooled_by_hand(video: str, name: str, start: float, end: float) -> list[float]:
    """The maximum over the rows of a narration's window of at least 4 s, inside the video."""
    middle, length = (start + end) / 2, max(4.0, end - start)
    first = min(max(middle - length / 2, 0.0), SECONDS - length)
    fps, _ = STREAMS[name]
    rows = [row for i, row in enumerate(rows_of(video, name)) if i / fps < first + length and (i + 1) / fps > first]
    found: list[float] = np.max(rows, axis=0).tolist()
    return found


@quiet
def test_a_sample_is_a_video_with_a_row_for_each_of_its_narrations(filled: Root, lab: Lab) -> None:
    lab.append(filled, [lab.narration(IDS[0], 6.0, 8.0, "dropped", kept=False)])
    shards = lab.make_shards(filled, SETTINGS)
    assert [shard.samples for shard in shards] == [4, 2]
    assert sum(shard.seconds for shard in shards) == 6 * SECONDS
    assert [problem for shard in shards for problem in verify_shard(filled, shard)] == []
    found: list[dict[str, Any]] = []
    for shard in shards:
        found += webdataset.WebDataset(filled.storage.path(shard.key), shardshuffle=False).decode()
    gc.collect()
    assert {sample["json"]["video_id"] for sample in found} == {*IDS}
    for sample in found:
        facts = sample["json"]
        said = [(each["start"], each["end"]) for each in facts["candidates"]]
        assert said == [(time + 0.25, time + 1.5) for time in range(0, 12, 2)]
        assert facts["text"] == facts["candidates"][0]["text"] == f"{facts['video_id']} says at 0.25"
        assert (facts["start"], facts["clip_end"], facts["task_id"]) == (0, SECONDS, "tyre")
        assert facts["streams"].keys() == STREAMS.keys()
        for name in STREAMS:
            rows = sample[f"{name}.npy"]
            assert rows.dtype == np.float16
            assert rows.tolist() == [pooled_by_hand(facts["video_id"], name, *times) for times in said]


def test_our_reader_gives_each_video_once_an_epoch_as_pairs(filled: Root, lab: Lab) -> None:
    lab.make_shards(filled, SETTINGS)
    reader = ClipReader(f"{filled.url}/shards/rows", settings=ReaderSettings(pairs=4, size=32), seed=3)
    epochs = []
    for epoch in range(2):
        reader.set_epoch(epoch)
        epochs.append(list(reader))
    for clips in epochs:
        assert sorted(clip["video_id"] for clip in clips) == IDS
        assert all(clip["features"].shape == (4, 7) for clip in clips)
    first, second = ({clip["video_id"]: clip["narrations"] for clip in clips} for clips in epochs)
    assert first != second
    again = ClipReader(f"{filled.url}/shards/rows", settings=ReaderSettings(pairs=4, size=32), seed=3)
    again.load_state_dict({"epoch": 0, "position": 2})
    for left, right in zip(epochs[0][2:], again, strict=True):
        assert left["narrations"] == right["narrations"]
        assert torch.equal(left["features"], right["features"])
    video = epochs[0][0]["video_id"]
    for text, row in zip(epochs[0][0]["narrations"], epochs[0][0]["features"], strict=True):
        start = float(text.rpartition(" ")[2])
        wanted = np.concatenate(
            [
                part / np.linalg.norm(part)
                for part in (np.array(pooled_by_hand(video, name, start, start + 1.25)) for name in STREAMS)
            ]
        )
        assert row.numpy() == pytest.approx(wanted, abs=1e-6)


def test_a_shard_made_again_has_the_same_bytes_whatever_the_settings_say_then(filled: Root, lab: Lab) -> None:
    """As forgetting and repairing make it, which know the name of the export only."""
    (shard, _) = lab.make_shards(filled, SETTINGS)
    stage = MakeShards(filled, ShardSettings(export="rows"))
    (plan,) = stage.inputs([f"rows/{shard.shard}"])
    assert list(stage(plan)) == [shard]


def test_videos_are_planned_once_their_features_are_there(root: Root, lab: Lab) -> None:
    lab.add_videos(root, IDS, b"proxy", SECONDS)
    add_features(root, lab, IDS[:2])
    first = plan_export(root, SETTINGS)
    assert (first.total.samples, first.dropped) == (2, {"no_features": 24})
    plans = list(root.table(Plan).rows())
    assert plan_export(root, SETTINGS).total.samples == 0
    add_features(root, lab, IDS[2:])
    lab.append(root, [lab.narration(IDS[0], 5.0, 6.0, "came later")])
    later = summarise(propose(root, SETTINGS))
    assert (later.total.samples, later.dropped) == (4, {})
    plan_export(root, SETTINGS)
    kept = {plan.shard: plan for plan in root.table(Plan).rows()}
    assert [kept[plan.shard] for plan in plans] == plans
    assert "came later" not in repr(kept)


def test_a_plan_names_the_objects_that_it_is_made_of(filled: Root) -> None:
    plan_export(filled, SETTINGS)
    samples = [sample for plan in filled.table(Plan).rows() for sample in plan.samples]
    features = {row.video_id: row.streams for row in filled.table(Features).rows()}
    assert len(samples) == 6
    for sample in samples:
        assert sample.features == features[sample.video_id]
        assert len(sample.windows or ()) == len(sample.candidates) == 6


def test_many_narrations_go_into_several_commits_of_the_same_plan(
    filled: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.plan._SAMPLES_A_COMMIT", 10)
    monkeypatch.setattr("shards.plan._SAMPLES_AT_A_TIME", 7)
    plan_export(filled, SETTINGS.model_copy(update={"samples_per_shard": 1}))
    assert len(filled.table(Plan).keys()) == 6
    # Made empty, and then two videos at a time.
    assert filled.table(Plan).version() == 3


@pytest.mark.parametrize("damage", ["missing", "flipped", "of another shape"])
def test_features_that_are_not_what_was_planned_fail_their_shard(damage: str, filled: Root, lab: Lab) -> None:
    plan_export(filled, SETTINGS)
    stage = MakeShards(filled, SETTINGS)
    plan = next(iter(stage.inputs(stage.input_keys().to_pylist())))
    stream = (plan.samples[0].features or [])[0]
    if damage == "of another shape":
        streams = [stream.model_copy(update={"dim": stream.dim + 1}), *(plan.samples[0].features or [])[1:]]
        sample = plan.samples[0].model_copy(update={"features": streams})
        plan = plan.model_copy(update={"samples": [sample, *plan.samples[1:]]})
    else:
        path = Path(filled.storage.path(stream.key))
        data = bytearray(path.read_bytes())
        data[-1] ^= 4
        path.unlink() if damage == "missing" else path.write_bytes(bytes(data))
    with pytest.raises(Permanent, match=stream.key) as raised:
        stage(plan)
    assert raised.value.reason == "corrupt_features"
    assert not filled.table(Shard).exists()


def test_a_broken_array_in_a_tar_is_named(filled: Root, lab: Lab) -> None:
    shard, _ = lab.make_shards(filled, SETTINGS)
    path = Path(filled.storage.path(shard.key))
    data = path.read_bytes()
    assert data.count(b"NUMPY") == 8
    path.write_bytes(data.replace(b"NUMPY", b"NUMPI", 1))
    # Against an index that says so, which is what a writer that went wrong would leave.
    assert "describes another tar" in verify_shard(filled, shard)[0]
    from shards.verify import problems_of_tar
    from shards.write import index_tar

    (problem,) = problems_of_tar(path, index_tar(path))
    assert "npy" in problem
    assert "not an array" in problem


def test_long_windows_are_refused_for_features() -> None:
    with pytest.raises(ValueError, match="leave them at narration"):
        ShardSettings(kind="features", windows="context")


def test_an_export_of_clips_is_not_continued_as_features(filled: Root) -> None:
    plan_export(filled, SETTINGS)
    with pytest.raises(ConfigError, match="kind is features, not clip"):
        plan_export(filled, ShardSettings(**{**json.loads(SETTINGS.model_dump_json()), "kind": "clip"}))
