"""Which clips a run is evaluated on while it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from sayso.errors import ConfigError
from train.heldout import heldout_data
from train.recipe import load_recipe
from train.run import prepare


def test_held_out_clips_of_a_mix_are_not_those_that_it_is_trained_on(small_recipe: Path) -> None:
    mix = "data.mix=[{export: clips, split: train}, {export: clips, weight: 2}]"
    recipe = load_recipe(small_recipe, ["data.export=null", mix, "evaluation.split=test"])
    assert [source.split for source in recipe.data.sources] == ["train", "train"]
    assert [(source.split, source.weight) for source in heldout_data(recipe).sources] == [("test", 1), ("test", 2)]


def test_an_evaluation_without_one_whole_batch_is_refused_with_its_split(small_recipe: Path, tmp_path: Path) -> None:
    overrides = [f"output.folder={tmp_path / 'run'}", "data.batch=32", "evaluation.split=test"]
    with pytest.raises(ConfigError, match=r"data\.batch 32 is more than the 6 clips an epoch has of .*clips \(test\)"):
        prepare(load_recipe(small_recipe, overrides))
