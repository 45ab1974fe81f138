import re
from pathlib import Path

import pytest

from sayso.errors import ConfigError, InputError
from shards.mix import Source
from train.models.gated import GatedSettings, GatedTextSettings
from train.models.video_text import VideoTextSettings
from train.objectives.mil_nce import MILNCESettings
from train.objectives.ranking import RankingSettings
from train.recipe import load_recipe, recipe_names
from train.run import refuse_missing_accelerators
from train.schedule import ScheduleName, rate_factor
from train.vocabulary import load_vectors

WHERE = ["data.root=/data", "data.export=clips", "output.folder=/runs/one"]


def test_every_recipe_that_comes_with_sayso_loads_by_name() -> None:
    assert recipe_names() == [
        "howto100m_ranking",
        "mil_nce_demo",
        "mil_nce_paper",
        "mil_nce_release_8gpu",
    ]
    for name in recipe_names():
        assert load_recipe(name, WHERE).data.sources == [Source(url="/data/shards/clips", split="train")]


def test_several_exports_are_mixed_by_their_weights() -> None:
    mix = "data.mix=[{export: talks, weight: 3}, {root: 's3://bucket/other/', export: how-tos, split: all}]"
    recipe = load_recipe("mil_nce_paper", ["data.root=/data", mix, "output.folder=/runs/one"])
    assert recipe.data.sources == [
        Source(url="/data/shards/talks", split="train", weight=3),
        Source(url="s3://bucket/other/shards/how-tos", split="all"),
    ]


def test_the_published_settings() -> None:
    recipe = load_recipe("mil_nce_paper", WHERE)
    assert (recipe.data.batch, recipe.engine.world_size, recipe.optimiser.lr) == (8192, 64, 1e-3)
    clips = recipe.data.clips
    assert (clips.frames, clips.fps, clips.size, clips.candidates, clips.per_video) == (32, 10, 200, 5, True)
    assert isinstance(recipe.model, VideoTextSettings)
    assert (recipe.model.video.width, recipe.objective) == (1, MILNCESettings())


@pytest.mark.parametrize("name", ["mil_nce_paper", "mil_nce_release_8gpu", "howto100m_ranking"])
def test_published_recipes_ask_for_word_vectors(name: str) -> None:
    vectors = load_recipe(name, WHERE).model.text.vectors
    assert vectors is not None, "all narrations would be read for a vocabulary, and vectors learnt that are not theirs"
    with pytest.raises(
        InputError, match=r"no word vectors in word2vec\.bin: .* as model\.text\.vectors \(.*No such file"
    ):
        load_vectors(vectors)


def test_the_settings_of_the_training_release() -> None:
    recipe = load_recipe("mil_nce_release_8gpu", WHERE)
    assert (recipe.data.batch, recipe.engine.ranks, recipe.schedule.epochs) == (512, 8, 300)
    assert recipe.engine.device == "cuda", "a machine whose driver does not answer would go on with 8 ranks on its CPU"
    assert isinstance(recipe.model, VideoTextSettings)
    assert (recipe.model.video.stem, recipe.objective) == ("plain", MILNCESettings(denominator="release"))
    clips = recipe.data.clips
    assert (clips.frames, clips.fps, clips.size, clips.scaled_short_side, clips.candidates) == (16, 5, 224, 256, 4)
    assert rate_factor(9_999, warmup=recipe.schedule.warmup_steps, total=700_000) == 1


@pytest.mark.parametrize(
    ("there", "mend"), [(0, r"see that its driver answers \(nvidia-smi\)"), (2, r"set engine\.ranks to that")]
)
def test_fewer_devices_than_ranks_are_refused_with_what_helps(
    there: int, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    with pytest.raises(ConfigError, match=rf"engine\.ranks 8: this machine has {there} CUDA devices; {mend}, or"):
        refuse_missing_accelerators(load_recipe("mil_nce_release_8gpu", WHERE))


def test_the_settings_of_the_ranking() -> None:
    where = [*WHERE, "model.text.vectors=/words.npz"]
    recipe = load_recipe("howto100m_ranking", where)
    model, schedule = recipe.model, recipe.schedule
    assert isinstance(model, GatedSettings)
    assert (model.features, model.embedding, model.text.hidden) == (4096, 4096, 4096)
    assert recipe.objective == RankingSettings(margin=0.1, same_video=0.5)
    assert (recipe.data.batch, recipe.data.clips.pairs) == (32, 64)
    assert (recipe.optimiser.name, recipe.optimiser.lr, schedule.epochs) == ("adam", 1e-4, 15)
    assert (schedule.name, schedule.decay, schedule.warmup_steps) == ("decay", 0.9, 0)


def test_objective_and_model_are_chosen_by_their_names() -> None:
    assert load_recipe("mil_nce_demo", WHERE).objective == MILNCESettings()
    ranked = load_recipe("mil_nce_demo", [*WHERE, "objective={name: ranking, margin: 0.2}"])
    assert ranked.objective == RankingSettings(margin=0.2)
    assert isinstance(ranked.model, VideoTextSettings)
    gated = load_recipe("mil_nce_demo", [*WHERE, "model={name: gated, streams: {2d: 6}, embedding: 4}"])
    assert isinstance(gated.model, GatedSettings)
    assert gated.model.features == 6
    assert gated.model.text.hidden == 4096
    with_words = load_recipe("mil_nce_demo", [*WHERE, "model={name: gated}", "model.text.vectors=/words.npz"])
    assert with_words.model == GatedSettings(text=GatedTextSettings(vectors=Path("/words.npz")))
    assert with_words.model.text.hidden == 4096  # another key of the text tower leaves it


def test_a_recipe_saved_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("mil_nce_demo", [*WHERE, "seed=3"])
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.bach=64",
            r"unknown key data\.bach "
            r"\(allowed here: root, export, split, mix, clips, batch, accumulate, augment, workers\)",
        ),
        ("objective.denominator=papre", r"objective\.denominator: .*'paper' or 'release'"),
        ("objective={name: ranked}", r"objective: .*'ranked'.* expected tags: 'mil_nce', 'ranking'"),
        ("objective={name: ranking, margin: -1}", r"objective\.margin: .*greater than or equal to 0"),
        (
            "objective={name: ranking, denominator: paper}",
            r"unknown key objective\.denominator \(allowed here: name, margin, same_video, normalised\)",
        ),
        ("model.video.widht=1", r"unknown key model\.video\.widht \(allowed here: width, embedding, "),
        ("output={folder: s3://one/run, mirror: s3://two/run}", r"folder is a URL, s3://one/run: .* leave mirror away"),
        ("data.batch=many", r"data\.batch: .*integer"),
        ("optimiser.lr=-1", r"optimiser\.lr: .*greater than 0"),
        ("engine.ranks=3", r"data\.batch \d+ cannot be shared out over engine\.ranks 3"),
        ("data.accumulate=5", r"data\.batch \d+ cannot be shared out over engine\.ranks 2 times data\.accumulate 5"),
        ("engine.nodes=3", r"cannot be shared out over engine\.ranks 2 times engine\.nodes 3"),
        ("engine={precision: fp16, zero_stage: 1}", r"engine: .*precision fp16 needs zero_stage 0"),
        ("engine={compile: true, zero_stage: 3}", r"engine: .*compile goes neither with"),
        ("schedule.epochs=10", r"schedule: .*either epochs or steps"),
        ("schedule.warmup_steps", r"an override is written key=value"),
    ],
)
def test_wrong_keys_and_values_are_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("mil_nce_demo", [*WHERE, override])


@pytest.mark.parametrize("key", ["frames", "size"])
def test_blocks_of_two_need_even_clips(key: str) -> None:
    load_recipe("mil_nce_demo", [*WHERE, f"data.clips.{key}=63"])
    with pytest.raises(
        ConfigError, match=rf"data\.clips\.{key} 63 must be even with model\.video\.stem=space_to_depth"
    ):
        load_recipe("mil_nce_demo", [*WHERE, f"data.clips.{key}=63", "model.video.stem=space_to_depth"])


def test_an_average_of_weights_that_no_rank_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimiser\.ema needs engine\.zero_stage 2 or less"):
        load_recipe("mil_nce_demo", [*WHERE, "optimiser.ema=0.99", "engine.zero_stage=3"])


def test_what_has_no_default_must_be_given() -> None:
    with pytest.raises(ConfigError, match=re.escape("output.folder: field required")):
        load_recipe("mil_nce_demo", WHERE[:2])
    for given in ("data.export=clips", "data.mix=[{export: clips}]", "data.mix=[{root: /a, export: a}, {export: b}]"):
        with pytest.raises(ConfigError, match="give root, the folder or URL of the dataset"):
            load_recipe("mil_nce_paper", [given, WHERE[2]])


@pytest.mark.parametrize("given", [[], ["data.export=clips", "data.mix=[{export: clips}]"]])
def test_one_export_or_a_mix_must_be_given(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="give either export or mix"):
        load_recipe("mil_nce_paper", [WHERE[0], *given, WHERE[2]])


def test_a_run_in_a_folder_of_its_recipes_name_hides_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mil_nce_demo").mkdir()
    assert load_recipe("mil_nce_demo", WHERE).data.batch == 64


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError,
        match="no recipe mil_nce: give a YAML file or one of howto100m_ranking, mil_nce_demo, mil_nce_paper",
    ):
        load_recipe("mil_nce", WHERE)
    with pytest.raises(ConfigError, match=r"missing\.yaml: no such file"):
        load_recipe("missing.yaml", WHERE)


@pytest.mark.parametrize(
    ("name", "middle", "end"), [("cosine", 0.5, 0), ("linear", 0.5, 0), ("constant", 1, 1), ("decay", 0.81, 0.729)]
)
def test_the_rate_rises_and_goes_its_way(name: ScheduleName, middle: float, end: float) -> None:
    factors = [rate_factor(step, warmup=4, total=24, name=name, decay=0.9, per_epoch=7) for step in range(25)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4] == pytest.approx(1.0)
    assert factors[14] == pytest.approx(middle)
    assert factors[24] == pytest.approx(end, abs=1e-9)
    assert factors[4:] == sorted(factors[4:], reverse=True)
