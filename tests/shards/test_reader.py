"""What a training run sees: one order for all, exact resume, frames of the right time, broken samples counted."""

from __future__ import annotations

import io
import pickle
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sayso.config import validate
from sayso.errors import ConfigError, CorruptObject, InputError
from sayso.root import Root
from sayso.storage import Storage
from shards.clips import Clip
from shards.contents import NAME, SCHEMA
from shards.manifest import table_bytes
from shards.reader import ClipReader, ReaderSettings
from shards.settings import ShardSettings

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

VIDEOS = [f"site:v{number}" for number in range(9)]
SMALL = ReaderSettings(frames=4, size=32, candidates=5, per_video=False, block_shards=3)


def export(lab: Lab, root: Root, proxy: Path, ids: list[str], plan: ShardSettings) -> str:
    lab.add_videos(root, ids, proxy.read_bytes(), 12)
    lab.make_shards(root, plan)
    return f"{root.url}/shards/{plan.export}"


@pytest.fixture(scope="module")
def url(lab: Lab, proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """54 clips of 9 videos, two videos a shard."""
    root = Root(str(tmp_path_factory.mktemp("reader"))).create()
    return export(lab, root, proxy, VIDEOS, ShardSettings(samples_per_shard=14, val=0, test=0))


def reader(url: str, *, rank: int = 0, world_size: int = 1, batch_size: int = 1, **changed: Any) -> ClipReader:
    chosen = SMALL.model_copy(update=changed)
    return ClipReader(
        url, split="train", settings=chosen, seed=3, rank=rank, world_size=world_size, batch_size=batch_size
    )


def keys(clips: Iterable[Clip]) -> list[str]:
    return [clip["key"] for clip in clips]


def raw_keys(reader: ClipReader) -> list[str]:
    return [sample.key for sample in reader.raw()]


def interleaved(ranks: list[list[str]]) -> list[str]:
    return [key for step in zip(*ranks, strict=True) for key in step]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("per_video", [False, True])
def test_ranks_share_out_one_order(url: str, world_size: int, per_video: bool) -> None:
    alone = raw_keys(reader(url, per_video=per_video))
    readers = [reader(url, rank=r, world_size=world_size, per_video=per_video) for r in range(world_size)]
    ranks = [raw_keys(each) for each in readers]
    assert {len(rank) for rank in ranks} == {len(each) for each in readers} == {len(alone) // world_size}
    assert interleaved(ranks) == alone[: len(alone) // world_size * world_size]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 54), st.sampled_from([1, 2, 3, 4]), st.integers(0, 3))
def test_a_run_resumes_at_any_position_on_any_number_of_ranks(
    url: str, position: int, world_size: int, epoch: int
) -> None:
    whole = reader(url)
    whole.set_epoch(epoch)
    expected = raw_keys(whole)[position:]
    state = {"epoch": epoch, "position": position}
    ranks = []
    for rank in range(world_size):
        resumed = reader(url, rank=rank, world_size=world_size)
        resumed.load_state_dict(state)
        resumed.set_epoch(epoch)
        ranks.append(raw_keys(resumed))
    assert interleaved(ranks) == expected[: len(expected) // world_size * world_size]


def test_every_clip_comes_once_an_epoch_and_epochs_differ(url: str) -> None:
    each = reader(url)
    first = raw_keys(each)
    each.set_epoch(1)
    second = raw_keys(each)
    assert len(set(first)) == len(first) == each.samples == 54
    assert sorted(first) == sorted(second)
    assert first != second


def test_an_epoch_can_be_one_random_clip_of_each_video(url: str) -> None:
    each = reader(url, per_video=True)
    assert len(each) == len(VIDEOS)
    drawn: Counter[str] = Counter()
    for epoch in range(60):
        each.set_epoch(epoch)
        samples = list(each.raw())
        assert sorted(sample.facts["video_id"] for sample in samples) == VIDEOS
        drawn.update(sample.key for sample in samples)
    # Each of the 54 clips is expected 10 times in 60 epochs.
    assert len(drawn) == 54
    assert max(drawn.values()) < 25


def test_a_video_that_lies_in_several_shards_is_drawn_once(lab: Lab, root: Root, proxy: Path) -> None:
    url = export(lab, root, proxy, VIDEOS[:4], ShardSettings(samples_per_shard=4, val=0, test=0))
    each = reader(url, per_video=True)
    assert each.video_ids == VIDEOS[:4]
    drawn = set()
    for epoch in range(60):
        each.set_epoch(epoch)
        samples = list(each.raw())
        assert sorted(sample.facts["video_id"] for sample in samples) == VIDEOS[:4]
        drawn |= {sample.key for sample in samples}
    assert len(drawn) == 24


@pytest.mark.parametrize(("workers", "batch_size"), [(0, None), (2, None), (2, 4)])
def test_loader_workers_do_not_change_the_order(url: str, workers: int, batch_size: int | None) -> None:
    each = reader(url, rank=1, world_size=2, batch_size=batch_size or 1)
    expected = list(each)
    loader: DataLoader[Any] = DataLoader(each, batch_size=batch_size, num_workers=workers, collate_fn=as_it_is)
    loaded = list(loader)
    clips = [clip for batch in loaded for clip in batch] if batch_size else loaded
    assert keys(clips) == keys(expected)
    for clip, other in zip(clips, expected, strict=True):
        assert torch.equal(clip["frames"], other["frames"])
        assert clip["start"] == other["start"]


def as_it_is(batch: Any) -> Any:
    return batch


def test_workers_that_outlive_an_epoch_see_the_next_one_and_the_position(url: str) -> None:
    each = reader(url)
    loader: DataLoader[Any] = DataLoader(
        each, batch_size=None, num_workers=1, persistent_workers=True, collate_fn=as_it_is
    )
    first = keys(loader)
    each.set_epoch(1)
    each.advance(50)
    rest = keys(loader)
    assert each.state_dict() == each.state_at(1, 50)
    alone = reader(url)
    assert first == raw_keys(alone)
    alone.set_epoch(1)
    assert rest == raw_keys(alone)[50:]


def sleep_late(worker: int) -> None:
    time.sleep(0.5 * worker)


@pytest.mark.parametrize("persistent", [False, True])
def test_counting_while_workers_still_start_moves_none_of_them(url: str, persistent: bool) -> None:
    each = reader(url, batch_size=4)
    loader: DataLoader[Any] = DataLoader(
        each, batch_size=4, num_workers=2, persistent_workers=persistent, collate_fn=as_it_is, worker_init_fn=sleep_late
    )
    expected = reader(url)
    for epoch in range(2):
        found = []
        each.set_epoch(epoch)
        expected.set_epoch(epoch)
        for clips in loader:
            found += [clip["key"] for clip in clips]
            each.advance(len(clips))
        assert found == raw_keys(expected)
        assert each.state_dict() == each.state_at(epoch, each.samples)


def test_a_pickled_reader_reads_the_same(url: str) -> None:
    each = reader(url)
    each.load_state_dict({"epoch": 2, "position": 7})
    assert raw_keys(pickle.loads(pickle.dumps(each))) == raw_keys(each)


def test_frames_are_those_shown_at_their_times(lab: Lab, url: str) -> None:
    each = reader(url, frames=12, size=240, short_side=240, crop="center", flip=False)
    for clip in each:
        times = [clip["start"] + i / 10 for i in range(12)]
        seen = [lab.number(frame[120, :, 0].tolist(), left=40) for frame in clip["frames"]]
        assert seen == [int(time * 10 + 0.01) for time in times]
        assert clip["frames"].shape == (12, 240, 240, 3)
        assert clip["frames"].dtype == torch.uint8
        assert clip["end"] == pytest.approx(clip["start"] + 1.2)


def test_frames_lie_in_the_window_and_starts_are_spread_over_it(url: str) -> None:
    each = reader(url)
    facts = {sample.key: sample.facts for sample in each.raw()}
    shares = []
    for epoch in range(4):
        each.set_epoch(epoch)
        for clip in each:
            window = facts[clip["key"]]
            assert window["start"] <= clip["start"] < clip["end"] <= window["end"] + 1e-6
            shares.append((clip["start"] - window["start"]) / (window["end"] - window["start"] - 0.4))
    assert min(shares) < 0.05
    assert max(shares) > 0.95
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.08)


def test_a_clip_shorter_than_its_frames_repeats_the_last(url: str) -> None:
    clip = next(iter(reader(url, frames=100, start="center")))
    assert clip["frames"].shape[0] == 100
    assert torch.equal(clip["frames"][-1], clip["frames"][-2])
    assert clip["end"] - clip["start"] < 10


def test_bags_are_padded_and_masked(url: str) -> None:
    for clip in reader(url, candidates=7):
        assert clip["narration_mask"].tolist() == [True] * 6 + [False]
        assert clip["narrations"][6] == ""
        assert all(text.startswith(clip["video_id"]) for text in clip["narrations"][:6])
        assert f"{float(clip['narrations'][0].rpartition(' ')[2]) * 1000:09.0f}" in clip["key"]


def test_flips_mirror_half_of_the_clips(url: str) -> None:
    straight = {clip["key"]: clip["frames"] for clip in reader(url, crop="center", start="center", flip=False)}
    flipped = 0
    for clip in reader(url, crop="center", start="center"):
        mirrored = torch.equal(clip["frames"], straight[clip["key"]].flip(2))
        assert mirrored or torch.equal(clip["frames"], straight[clip["key"]])
        flipped += mirrored
    assert 10 <= flipped <= 44


def test_broken_samples_are_counted_and_replaced_alike_on_any_number_of_ranks(
    lab: Lab, root: Root, proxy: Path
) -> None:
    url = export(lab, root, proxy, VIDEOS[:3], ShardSettings(val=0, test=0))
    key = "shards/clips/train-000000.tar"
    data = bytearray(root.storage.read(key))
    data[5000] ^= 1
    root.storage.put_bytes(bytes(data), key)
    each = reader(url)
    alone = raw_keys(each)
    assert each.broken == 1
    assert len(alone) == 18
    assert len(set(alone)) == 17
    assert interleaved([raw_keys(reader(url, rank=r, world_size=3)) for r in range(3)]) == alone
    loader: DataLoader[Any] = DataLoader(each, batch_size=None, num_workers=2, collate_fn=as_it_is)
    assert keys(loader) == alone
    assert each.broken == 2


@pytest.mark.parametrize("object_name", ["train-000000.tar", "train-000000.index.parquet"])
def test_a_hundred_broken_samples_in_a_row_stop_the_run(lab: Lab, root: Root, proxy: Path, object_name: str) -> None:
    url = export(lab, root, proxy, VIDEOS[:1], ShardSettings(val=0, test=0))
    root.storage.remove(f"shards/clips/{object_name}")
    each = reader(url)
    with pytest.raises(CorruptObject, match=f"100 broken samples in a row.*{object_name}: missing"):
        next(iter(each))
    assert each.broken == 100


def test_what_cannot_be_opened_is_said_in_one_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sayso shard"):
        reader(str(tmp_path))
    with pytest.raises(InputError, match=r"no split 'val' \(there are: train\)"):
        ClipReader(url, split="val", settings=SMALL, seed=0)
    with pytest.raises(InputError, match="9 samples for 10 ranks"):
        reader(url, per_video=True, world_size=10)
    with pytest.raises(ConfigError, match="short_side"):
        validate(ReaderSettings, {"size": 32, "short_side": 16}, "recipe")
    (tmp_path / NAME).write_bytes(table_bytes(SCHEMA.empty_table(), {"format": 99}))
    with pytest.raises(InputError, match="format 99"):
        reader(str(tmp_path))
    for nonsense in (b"not Parquet", table_bytes(SCHEMA.empty_table(), {}), whole_table_without_facts()):
        (tmp_path / NAME).write_bytes(nonsense)
        with pytest.raises(InputError, match=r"manifest\.parquet: not a manifest; `sayso shard`"):
            reader(str(tmp_path))


def whole_table_without_facts() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(SCHEMA.empty_table(), buffer)
    return buffer.getvalue()


def test_a_state_of_other_data_is_refused(url: str) -> None:
    each = reader(url)
    for state in ({"epoch": 0, "position": 3, "samples": 55}, {"epoch": 0, "position": 55}):
        with pytest.raises(ConfigError, match="does not fit"):
            each.load_state_dict(state)


def test_growth_adds_clips_and_keeps_the_old_shards(lab: Lab, root: Root, proxy: Path) -> None:
    plan = ShardSettings(samples_per_shard=9, val=0, test=0)
    url = export(lab, root, proxy, VIDEOS[:3], plan)
    before = {key: root.storage.read(key) for key in root.storage.list("shards") if key.endswith(".tar")}
    old = set(raw_keys(reader(url)))
    export(lab, root, proxy, VIDEOS[3:5], plan)
    assert {key: root.storage.read(key) for key in before} == before
    assert old < set(raw_keys(reader(url)))
    assert reader(url).samples == 30


def test_any_fsspec_url_is_read(url: str) -> None:
    elsewhere = Storage("memory://bucket/shards/clips")
    for path in Path(url).iterdir():
        elsewhere.put_file(path, path.name)
    assert keys(reader(elsewhere.url)) == keys(reader(url))
