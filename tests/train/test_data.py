import itertools
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch

from sayso.errors import ConfigError, CorruptObject
from sayso.root import Root
from shards.clips import Clip
from shards.reader import ClipReader
from train.data import Batch, Batches, ahead, frames_to_device, narrations, open_reader, to_device
from train.engine import build_model
from train.recipe import DataSettings, load_recipe
from train.run import prepare
from train.vocabulary import Vocabulary


def data_settings(recipe: Path, *overrides: str) -> DataSettings:
    return load_recipe(recipe, list(overrides)).data


def taken(settings: DataSettings, first: int, last: int, *, rank: int = 0, world_size: int = 1) -> list[torch.Tensor]:
    """The frames of the batches [first, last), which tell clips apart by their crops and times."""
    reader = open_reader(settings, seed=1, rank=rank, world_size=world_size)
    batches = Batches(reader, Vocabulary(["red"], 8), settings)
    return [batch["frames"] for batch in batches.from_step(first, last)]


def test_batches_are_the_same_with_any_number_of_workers_and_from_any_step(small_recipe: Path) -> None:
    settings = data_settings(small_recipe)
    whole = taken(settings, 0, 5)  # two batches in an epoch of 42 clips
    assert [batch.shape for batch in whole] == [(16, 4, 32, 32, 3)] * 5
    assert not torch.equal(whole[0], whole[2])
    later = taken(settings, 1, 5) + taken(data_settings(small_recipe, "data.workers=2"), 1, 5)
    for one, other in zip(later, [*whole[1:], *whole[1:]], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


class Noted(ClipReader):
    """Leaves a file behind for each epoch that somebody has begun to decode."""

    folder: Path

    def __iter__(self) -> Iterator[Clip]:
        epoch = self.state_dict()["epoch"]
        for clip in super().__iter__():
            (self.folder / str(epoch)).touch()
            yield clip


def test_workers_do_not_wait_for_the_end_of_an_epoch(small_recipe: Path, tmp_path: Path) -> None:
    """Else a rank waits at the beginning of each until one worker has decoded a whole batch."""
    settings = data_settings(small_recipe, "data.workers=1")
    reader = Noted(settings.sources, settings=settings.clips, seed=1, batch_size=16)
    reader.folder = tmp_path
    batches = Batches(reader, Vocabulary(["red"], 8), settings)
    coming = batches.from_step(0, 2 * batches.per_epoch)
    for _ in range(batches.per_epoch):
        next(coming)
    deadline = time.monotonic() + 20
    while not (tmp_path / "1").exists():
        assert time.monotonic() < deadline, "nobody has begun with the next epoch"
        time.sleep(0.01)
    assert len(list(coming)) == batches.per_epoch
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_ranks_share_each_batch_out(small_recipe: Path) -> None:
    settings = data_settings(small_recipe)
    for step, whole in enumerate(taken(settings, 0, 5)):
        shares = [taken(settings, step, step + 1, rank=rank, world_size=2)[0] for rank in range(2)]
        torch.testing.assert_close(torch.stack(shares, dim=1).flatten(0, 1), whole, rtol=0, atol=0)


def test_micro_batches_of_a_step_hold_the_clips_of_its_batch(small_recipe: Path) -> None:
    def keys(*overrides: str) -> list[list[str]]:
        settings = data_settings(small_recipe, *overrides)
        batches = Batches(open_reader(settings, seed=1), Vocabulary(["red"], 8), settings)
        return [batch["keys"] for batch in batches.from_step(1, 4)]

    whole, parts = keys(), keys("data.accumulate=4", "data.workers=2")
    assert [len(part) for part in parts] == [4] * 12
    assert [[key for part in parts[step * 4 : step * 4 + 4] for key in part] for step in range(3)] == whole


def test_a_batch_holds_words_and_which_candidates_are_there(small_recipe: Path) -> None:
    settings = data_settings(small_recipe, "data.clips.candidates=5")
    vocabulary = Vocabulary.from_texts(narrations(settings), max_words=8)
    assert {"red", "thank", "moves"} <= set(vocabulary.words)
    batch = next(Batches(open_reader(settings, seed=0), vocabulary, settings).from_step(0, 1))
    assert batch["tokens"].shape == (16, 5, 8)
    assert batch["mask"].tolist() == [[True] * 3 + [False] * 2] * 16  # a video has three narrations
    assert batch["tokens"][batch["mask"]].gt(0).any(dim=1).all()
    assert batch["tokens"][~batch["mask"]].eq(0).all()


def test_clips_of_one_video_have_one_number_on_all_ranks(small_recipe: Path) -> None:
    settings = data_settings(small_recipe)
    numbers: dict[str, set[int]] = {}
    for rank in range(2):
        reader = open_reader(settings, seed=1, rank=rank, world_size=2)
        for batch in Batches(reader, Vocabulary(["red"], 8), settings).from_step(0, 2):
            assert batch["videos"].dtype == torch.int64
            for key, number in zip(batch["keys"], batch["videos"].tolist(), strict=True):
                numbers.setdefault(key.rpartition("-")[0], set()).add(number)
    assert len(numbers) > 5
    assert all(len(found) == 1 for found in numbers.values())
    assert len(set.union(*numbers.values())) == len(numbers)


def test_a_batch_of_features_has_no_frames(features_root: Root) -> None:
    where = {"root": features_root.url, "export": "rows", "batch": 4, "clips": {"pairs": 3}}
    settings = DataSettings.model_validate(where)
    batch = next(Batches(open_reader(settings, seed=0), Vocabulary(["egg"], 8), settings).from_step(0, 1))
    assert {name: tuple(value.shape) for name, value in batch.items() if name != "keys"} == {
        "features": (4, 3, 16),
        "tokens": (4, 3, 8),
        "mask": (4, 3),
        "videos": (4,),
    }
    assert to_device(batch, torch.device("cpu")).keys() == batch.keys()


def test_a_run_without_a_word_is_refused(small_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no word occurs 9999 times \(model\.text\.min_count\)"):
        prepare(load_recipe(small_recipe, ["model.text.min_count=9999", f"output.folder={tmp_path / 'run'}"]))


def test_vectors_of_other_words_than_are_said_are_refused(small_recipe: Path, tmp_path: Path) -> None:
    vectors, where = tmp_path / "vectors.txt", f"output.folder={tmp_path / 'run'}"
    recipe = load_recipe(small_recipe, [f"model.text.vectors={vectors}", where])
    vectors.write_text("RED 1 2\nSUPPE 3 4\n")
    with pytest.raises(
        ConfigError, match=r"none of the first 100 narrations has a word of .*vectors\.txt: .*lower-case"
    ):
        prepare(recipe)
    vectors.write_text("RED 1 2\nred 3 4\n")
    assert prepare(recipe).total == 60


def test_of_the_words_of_vectors_those_that_are_said_make_the_model(small_recipe: Path, tmp_path: Path) -> None:
    vectors, folder = tmp_path / "vectors.txt", tmp_path / "run"
    vectors.write_text("never 1 2\nred 3 4\nRED 5 6\nthe 7 8\n")
    overrides = [f"model.text.vectors={vectors}", f"output.folder={folder}", "model.text.said_only=true"]
    recipe = load_recipe(small_recipe, overrides)
    prepare(recipe)
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    assert vocabulary.words == ["red", "the"]
    assert build_model(recipe, vocabulary).text.word_embd.weight.tolist() == [[0, 0], [3, 4], [7, 8]]
    vectors.write_text("never 1 2\nRED 5 6\n")
    with pytest.raises(ConfigError, match=r"none of the first 100 narrations has a word of"):
        prepare(load_recipe(small_recipe, [*overrides, f"output.folder={tmp_path / 'other'}"]))


def test_each_narration_counts_once_in_the_vocabulary(small_recipe: Path) -> None:
    settings = data_settings(small_recipe)
    texts = list(narrations(settings))
    assert len(texts) == open_reader(settings, seed=0).samples


def test_exports_are_mixed_and_resumed_at_any_step(small_recipe: Path) -> None:
    root = data_settings(small_recipe).root
    mix = f"data.mix=[{{root: '{root}', export: clips, weight: 3}}, {{root: '{root}', export: clips}}]"
    settings = data_settings(small_recipe, "data.root=null", "data.export=null", mix)
    assert open_reader(settings, seed=0).samples == 2 * open_reader(data_settings(small_recipe), seed=0).samples
    whole = taken(settings, 0, 7)
    for one, other in zip(taken(settings, 4, 7), whole[4:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert sorted(narrations(settings)) == sorted(narrations(data_settings(small_recipe)))


def test_bytes_become_floats_channels_first() -> None:
    frames = torch.randint(0, 256, (2, 4, 6, 5, 3), dtype=torch.uint8)
    found = frames_to_device(frames, torch.device("cpu"))
    torch.testing.assert_close(found, frames.permute(0, 4, 1, 2, 3) / 255)
    assert found.is_contiguous()


def test_batches_are_fetched_ahead_so_many_and_no_more() -> None:
    fetched = []

    def numbers() -> Generator[Batch]:
        for number in range(5):
            fetched.append(number)
            yield {"number": number}
        raise CorruptObject("the sixth is broken")

    batches = ahead(numbers(), 2)
    assert next(batches) == {"number": 0}
    while len(fetched) < 3:  # the two that follow come by themselves
        time.sleep(0.01)
    assert fetched == [0, 1, 2]
    assert [batch["number"] for batch in itertools.islice(batches, 4)] == [1, 2, 3, 4]
    with pytest.raises(CorruptObject, match="the sixth"):
        next(batches)

    fetched.clear()
    batches = ahead(numbers(), 2)
    next(batches)
    batches.close()  # as a run does that is stopped; nothing is fetched any more
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
    assert len(fetched) <= 3


def test_a_batch_that_no_epoch_fills_is_refused(small_recipe: Path) -> None:
    settings = data_settings(small_recipe, "data.batch=64")
    with pytest.raises(ConfigError, match=r"data\.batch 64 is more than the \d+ clips"):
        taken(settings, 0, 1)
