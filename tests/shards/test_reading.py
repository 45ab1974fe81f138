"""How samples come here: from remote stores, out of the cache, ahead of their use; and what is broken is counted."""

from __future__ import annotations

import functools
import io
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sayso.errors import ConfigError, CorruptObject, StorageError
from sayso.patience import Patience
from sayso.root import Root
from sayso.storage import Storage
from shards.mix import Source
from shards.reader import ClipReader, ReaderSettings
from shards.samples import Place
from shards.settings import ShardSettings
from tests.conftest import S3
from tests.faults import FaultyProxy

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

VIDEOS = [f"site:v{number}" for number in range(9)]
IMPATIENT = Patience(seconds=1, first_wait=0.05, longest_wait=0.2, connect_timeout=1, read_timeout=1)
TAR, INDEX = "train-000000.tar", "train-000000.index.parquet"


@pytest.fixture(scope="module")
def url(lab: Lab, proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """54 clips of 9 videos in 5 shards."""
    root = Root(str(tmp_path_factory.mktemp("reading"))).create()
    lab.add_videos(root, VIDEOS, proxy.read_bytes(), 12)
    lab.make_shards(root, ShardSettings(samples_per_shard=14, val=0, test=0))
    return f"{root.url}/shards/clips"


@pytest.fixture(scope="module")
def other(lab: Lab, proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """18 clips of 3 other videos."""
    root = Root(str(tmp_path_factory.mktemp("other"))).create()
    lab.add_videos(root, [f"other:v{number}" for number in range(3)], proxy.read_bytes(), 12)
    lab.make_shards(root, ShardSettings(samples_per_shard=7, val=0, test=0))
    return f"{root.url}/shards/clips"


def copied(url: str, target: str) -> Storage:
    """A copy of an export elsewhere."""
    storage = Storage(target)
    for path in Path(url).iterdir():
        storage.put_file(path, path.name)
    return storage


def reader(data: str | list[Source], cache: Path | None = None, **changed: Any) -> ClipReader:
    names = {"rank", "world_size", "batch_size", "patience", "options"} & changed.keys()
    given = {name: changed.pop(name) for name in names}
    base: dict[str, Any] = {"frames": 4, "size": 32, "per_video": False, "block_shards": 3}
    if cache:
        base["cache_folder"] = cache
    else:
        base["cache_bytes"] = 0
    return ClipReader(data, settings=ReaderSettings(**{**base, **changed}), seed=3, **given)


def raw_keys(each: ClipReader) -> list[str]:
    return [sample.key for sample in each.raw()]


def tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("prefetch", [0, 1, 7, 64])
def test_reading_ahead_changes_nothing(url: str, prefetch: int) -> None:
    remote = copied(url, f"memory://ahead-{prefetch}")
    each = reader(remote.url, prefetch=prefetch)
    assert raw_keys(each) == raw_keys(reader(url))
    assert [clip["key"] for clip in each] == raw_keys(each)


def test_threads_that_read_ahead_end_with_the_iteration(url: str) -> None:
    remote = copied(url, "memory://threads")
    iterator = reader(remote.url, prefetch=8).raw()
    next(iterator)
    assert any("sayso-read" in thread.name for thread in threading.enumerate())
    del iterator
    until(lambda: not any("sayso-read" in thread.name for thread in threading.enumerate()))


def test_shards_that_are_wanted_whole_are_kept(url: str, tmp_path: Path) -> None:
    remote = copied(url, "memory://whole")
    each = reader(remote.url, tmp_path)
    expected = raw_keys(each)
    until(lambda: len(tars(tmp_path)) == 5)
    assert sorted(path.stat().st_size for path in tars(tmp_path)) == sorted(
        path.stat().st_size for path in Path(url).glob("*.tar")
    )
    for key in [path.name for path in Path(url).glob("*.tar")]:
        remote.remove(key)
    again = reader(remote.url, tmp_path)
    assert raw_keys(each) == expected, "nothing is asked of the store but indexes, which are in memory"
    assert again.broken == 0


def test_of_shards_that_are_wanted_in_part_ranges_are_read(url: str, tmp_path: Path) -> None:
    remote = copied(url, "memory://part")
    assert len(raw_keys(reader(remote.url, tmp_path, rank=1, world_size=4))) == 13
    assert len(raw_keys(reader(remote.url, tmp_path, per_video=True))) == 9
    assert tars(tmp_path) == []
    each = reader(remote.url, tmp_path, rank=1, world_size=4, cache_from=0.2)
    assert len(raw_keys(each)) == 13
    until(lambda: len(tars(tmp_path)) == 5)


def test_ranks_of_one_machine_want_together(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = copied(url, "memory://together")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    each = reader(remote.url, tmp_path, rank=1, world_size=4)
    raw_keys(each)
    until(lambda: len(tars(tmp_path)) == 5)


def test_a_cache_that_holds_no_two_blocks_is_not_filled(url: str, tmp_path: Path) -> None:
    remote = copied(url, "memory://small-cache")
    sizes = [path.stat().st_size for path in Path(url).glob("*.tar")]
    assert len(raw_keys(reader(remote.url, tmp_path, cache_bytes=sum(sizes) - 1))) == 54
    assert tars(tmp_path) == []


def test_what_is_damaged_in_the_cache_is_read_from_the_store(url: str, tmp_path: Path) -> None:
    remote = copied(url, "memory://damaged")
    each = reader(remote.url, tmp_path)
    expected = raw_keys(each)
    until(lambda: len(tars(tmp_path)) == 5)
    damaged = tars(tmp_path)[0]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    damaged.write_bytes(data)
    again = reader(remote.url, tmp_path)
    assert raw_keys(again) == expected
    assert again.broken == 0
    until(lambda: not damaged.exists() or damaged.read_bytes() != bytes(data))


def test_loader_workers_share_the_cache(url: str, tmp_path: Path, s3: S3) -> None:
    remote = copied(url, s3.url("workers"))
    each = reader(remote.url, tmp_path)
    loader: DataLoader[Any] = DataLoader(each, batch_size=None, num_workers=2, collate_fn=as_it_is)
    assert [clip["key"] for clip in loader] == raw_keys(reader(url))
    until(lambda: not list(tmp_path.glob("*.partial")) or not tars(tmp_path))
    assert each.broken == 0


def as_it_is(batch: Any) -> Any:
    return batch


def flip(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def repeat_a_key(data: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    keys = table["key"].to_pylist()
    keys[3] = keys[1]
    return written(table.set_column(0, "key", pa.array(keys)))


def outside(data: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    place = table.column_names.index("bytes")
    return written(table.set_column(place, "bytes", pa.array([1 << 40] * len(table))))


def written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes] | None, dict[str, int]]] = {
    "no tar": (TAR, None, {"missing_tar": 12}),
    "half a tar": (TAR, lambda data: data[: len(data) // 2], {"short_tar": 6}),
    "a flipped bit": (TAR, flip, {"checksum": 1}),
    "no index": (INDEX, None, {"missing_index": 12}),
    "no Parquet": (INDEX, lambda data: b"PAR1 or not", {"bad_index": 12}),
    "an index of other columns": (INDEX, lambda data: written(pa.table({"key": ["a"] * 12})), {"bad_index": 12}),
    "an index of fewer samples": (
        INDEX, lambda data: written(pq.read_table(io.BytesIO(data)).slice(1)), {"bad_index": 12}
    ),
    "places outside the tar": (INDEX, outside, {"bad_index": 12}),
    "a key twice": (INDEX, repeat_a_key, {"repeated_key": 1}),
}  # fmt: skip


@pytest.mark.parametrize("where", ["local", "memory", "s3"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_broken_is_counted_by_kind_and_replaced(
    url: str, damage: str, where: str, tmp_path: Path, s3: S3
) -> None:
    bases = {"local": str(tmp_path / "copy"), "memory": f"memory://broken/{damage}", "s3": s3.url("broken")}
    storage = copied(url, bases[where])
    name, change, expected = DAMAGES[damage]
    if change is None:
        storage.remove(name)
    else:
        storage.put_bytes(change(storage.read(name)), name)
    each = reader(storage.url)
    met = raw_keys(each)
    whole = raw_keys(reader(url))
    assert len(met) == len(whole)
    changed = sum(one != another for one, another in zip(met, whole, strict=True))
    # Those drawn instead may be broken too, and are counted too.
    assert changed >= min(expected.values())
    assert each.broken_by_kind.keys() == expected.keys()
    kind, least = next(iter(expected.items()))
    assert changed == least
    assert each.broken_by_kind[kind] >= least  # type: ignore[index]
    assert each.broken == sum(each.broken_by_kind.values())


def test_counts_of_loader_workers_come_together(url: str, tmp_path: Path) -> None:
    storage = copied(url, str(tmp_path))
    storage.remove(TAR)
    alone = reader(storage.url)
    raw_keys(alone)
    each = reader(storage.url)
    loader: DataLoader[Any] = DataLoader(each, batch_size=None, num_workers=2, collate_fn=as_it_is)
    assert len(list(loader)) == 54
    assert each.broken_by_kind == alone.broken_by_kind


def test_a_clip_that_cannot_be_decoded_is_counted(lab: Lab, url: str, tmp_path: Path) -> None:
    """Whole by its checksums, and yet no video: as it was written."""
    storage = copied(url, str(tmp_path))
    table = pq.read_table(io.BytesIO(storage.read(INDEX)))
    rows = table.to_pylist()
    clip = rows[0]["members"][0]
    tar = bytearray(storage.read(TAR))
    tar[clip["offset"] : clip["offset"] + clip["bytes"]] = bytes(clip["bytes"])
    clip["crc32"] = zlib.crc32(bytes(clip["bytes"]))
    storage.put_bytes(bytes(tar), TAR)
    storage.put_bytes(written(pa.Table.from_pylist(rows, schema=table.schema)), INDEX)
    each = reader(storage.url)
    assert len(list(each)) == 54
    assert each.broken_by_kind == {"undecodable": 1}
    assert len(raw_keys(each)) == 54


def test_a_store_that_is_away_is_no_broken_sample(url: str, s3: S3) -> None:
    remote = copied(url, s3.url("away"))
    with FaultyProxy(s3.server.endpoint) as between:
        each = reader(remote.url, prefetch=2, patience=IMPATIENT, options={"endpoint_url": between.endpoint})
        iterator = each.raw()
        next(iterator)
        between.away()
        with pytest.raises(StorageError, match="nothing is lost"):
            for _ in iterator:
                pass
        assert each.broken == 0
        between.back()
        assert raw_keys(each) == raw_keys(reader(url))


def test_a_store_that_comes_back_is_waited_for(url: str, s3: S3) -> None:
    remote = copied(url, s3.url("back"))
    patient = Patience(seconds=30, first_wait=0.05, longest_wait=0.2, connect_timeout=1, read_timeout=1)
    with FaultyProxy(s3.server.endpoint) as between:
        each = reader(remote.url, prefetch=2, patience=patient, options={"endpoint_url": between.endpoint})
        iterator = each.raw()
        met = [next(iterator).key]
        between.away(1.0)
        met += [sample.key for sample in iterator]
    assert met == raw_keys(reader(url))
    assert each.broken == 0


SEGMENTS = st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5]), st.integers(0, 30)), max_size=6)


@pytest.mark.parametrize("mixed", [False, True])
@settings(max_examples=12, deadline=None)
@given(segments=SEGMENTS)
def test_any_ranks_one_after_the_other_go_through_one_order(
    url: str, other: str, mixed: bool, segments: list[tuple[int, int]]
) -> None:
    """Runs of some steps on some ranks, each resumed where the last one stopped, over the ends of epochs."""
    data = [Source(url=url, weight=1), Source(url=other, weight=2)] if mixed else url
    one_of = functools.cache(lambda rank, world_size: reader(data, rank=rank, world_size=world_size))
    alone = one_of(0, 1)
    state, met = alone.state_at(1, 0), list[Place]()
    for world_size, steps in segments:
        ranks = [one_of(rank, world_size) for rank in range(world_size)]
        for each in ranks:
            each.load_state_dict(state)
        streams = [each.places() for each in ranks]
        steps = min(steps, (alone.samples - state["position"]) // world_size)
        met += [next(stream) for _ in range(steps) for stream in streams]
        for each in ranks:
            each.advance(steps * world_size)
        assert len({tuple(each.state_dict().items()) for each in ranks}) == 1
        state = ranks[0].state_dict()
        if state["position"] == alone.samples:
            state = alone.state_at(state["epoch"] + 1, 0)
    expected: list[Place] = []
    while len(expected) < len(met):
        alone.load_state_dict(alone.state_at(1 + len(expected) // alone.samples, 0))
        expected += alone.places()
    assert met == expected[: len(met)]


def test_sources_are_read_in_proportion_and_each_in_its_own_epochs(url: str, other: str) -> None:
    each = reader([Source(url=url, weight=1), Source(url=other, weight=2)])
    assert each.samples == 72
    met: list[str] = []
    for epoch in range(72):
        each.set_epoch(epoch)
        met += raw_keys(each)
    assert len(met) == 72 * 72
    block = 1023  # the least whole multiple of the proportion that is near 1024
    for first in range(0, len(met) - block, block):
        of_other = sum(key.startswith("other") for key in met[first : first + block])
        assert of_other == 682
    # Every 18 samples of the other are one whole epoch of it, and no two of those are in the same order.
    others = [key for key in met if key.startswith("other")]
    epochs = [tuple(others[first : first + 18]) for first in range(0, len(others) - 17, 18)]
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(others[:18])}
    assert len(set(epochs)) == len(epochs)
    firsts = [key for key in met if not key.startswith("other")]
    assert Counter(firsts[:54]).most_common(1)[0][1] == 1


def test_a_source_comes_in_the_order_it_has_alone(url: str, other: str) -> None:
    each = reader([Source(url=url), Source(url=other)])
    mixed = [key for key in raw_keys(each) if key.startswith("other")]
    alone = reader(other)
    expected = raw_keys(alone)
    alone.set_epoch(1)
    expected += raw_keys(alone)
    # Within a block the mix takes a source's samples by number, and numbers go up in it.
    assert mixed == expected[: len(mixed)]


def test_a_mix_is_read_by_loader_workers_as_without(url: str, other: str) -> None:
    data = [Source(url=url, weight=0.5), Source(url=other, weight=0.5)]
    each = reader(data, batch_size=4)
    loader: DataLoader[Any] = DataLoader(each, batch_size=4, num_workers=2, collate_fn=as_it_is)
    assert [clip["key"] for batch in loader for clip in batch] == raw_keys(reader(data))
    assert each.video_ids == sorted([*VIDEOS, *(f"other:v{number}" for number in range(3))])


def test_a_state_of_other_data_or_another_order_is_refused(url: str, other: str, tmp_path: Path) -> None:
    mine = reader([Source(url=url), Source(url=other)])
    state = mine.state_dict()
    same_size = copied(url, str(tmp_path / "same-size"))
    manifest = pq.read_table(io.BytesIO(same_size.read("manifest.parquet")))
    facts = manifest.schema.metadata[b"sayso"].replace(b'"digest": "', b'"digest": "0')
    same_size.put_bytes(written(manifest.replace_schema_metadata({b"sayso": facts})), "manifest.parquet")
    others = [
        reader([Source(url=other), Source(url=url)]),
        reader([Source(url=url, weight=2), Source(url=other)]),
        reader([Source(url=url), Source(url=other)], block_shards=4),
        reader([Source(url=same_size.url), Source(url=other)]),
    ]
    for each in others:
        assert each.samples == mine.samples
        with pytest.raises(ConfigError, match=r"does not fit .*same-size|does not fit .*resume on the export"):
            each.load_state_dict(state)
    reader([Source(url=copied(url, str(tmp_path / "moved")).url), Source(url=other)]).load_state_dict(state)


def test_a_hundred_in_a_row_stop_the_run_of_a_remote_store_too(url: str) -> None:
    remote = copied(url, "memory://hundred")
    for key in [path.name for path in Path(url).glob("*.tar")]:
        remote.remove(key)
    each = reader(remote.url)
    with pytest.raises(CorruptObject, match="100 broken samples in a row"):
        raw_keys(each)
    assert each.broken >= 100
