"""Gated towers: their arithmetic, a real training on features, and the protocols on what came of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from sayso.errors import ConfigError, InputError
from sayso.root import Root
from sayso.rows import Media
from shards.reader import ClipReader, ReaderSettings
from tests.films import random_model
from tests.train.conftest import SCENES, THINGS, things_of
from train.evaluate.crosstask import CrossTask
from train.evaluate.embed import Embedder
from train.evaluate.hmdb51 import HMDB51, Labelled
from train.evaluate.pairs import Pair
from train.evaluate.protocol import Protocol, Report, evaluate
from train.evaluate.retrieval import evaluate_retrieval
from train.evaluate.sight import seen_in_export, seen_in_root, sight_of
from train.evaluate.text_to_clip import YouCook2
from train.evaluate.videos import videos_in_root
from train.launch import TrainResult, launch
from train.metrics import read_metrics
from train.models.gated import GatedSettings, GatedTextSettings, GatedUnit, GatedVideoText, load_howto100m_ranking
from train.objectives.ranking import Ranking, RankingSettings, ranking
from train.run import Latest, latest, point_to
from train.tasks import Task, check_clips
from train.weights import load_model

SETTINGS = GatedSettings(streams={"2d": 4, "3d": 2}, embedding=5, text=GatedTextSettings(hidden=7))


def small_model() -> GatedVideoText:
    return GatedVideoText(SETTINGS, words=9, word_dim=3)


# The towers


def test_a_unit_gates_by_itself_and_has_length_one() -> None:
    unit = GatedUnit(1, 2)
    with torch.no_grad():
        unit.fc.weight.copy_(torch.tensor([[3.0], [4.0]]))
        unit.fc.bias.zero_()
        unit.cg.fc.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        unit.cg.fc.bias.copy_(torch.tensor([0.0, -3.0]))
    # y = (3, 4); gates: sigmoid(0) = 1/2 and sigmoid(3 - 3) = 1/2; (1.5, 2) / 2.5
    torch.testing.assert_close(unit(torch.ones(1)), torch.tensor([0.6, 0.8]))
    # y = (6, 8); gates 1/2 and sigmoid(3) = 0.952574; (3, 7.620592) / 8.189822
    torch.testing.assert_close(unit(torch.full((1,), 2.0)), torch.tensor([0.3663083, 0.9304955]))


def test_embeddings_keep_the_shape_of_what_they_are_of_and_have_length_one() -> None:
    model = small_model()
    video, text = model.embed(torch.rand(3, 8, 6)), model.text(torch.randint(1, 9, (3, 8, 4)))
    assert video.shape == text.shape == (3, 8, 5)
    torch.testing.assert_close(video.norm(dim=-1), torch.ones(3, 8))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(3, 8))


def test_padding_changes_no_sentence_unless_it_is_to_as_in_the_release() -> None:
    model = small_model()
    with torch.no_grad():
        model.text.fc.bias.fill_(1.0)  # what padding then has in the maximum
    short, padded = torch.tensor([[3, 5]]), torch.tensor([[3, 5, 0, 0]])
    torch.testing.assert_close(model.text(short), model.text(padded))
    model.text.padding_in_max = True
    assert not torch.allclose(model.text(short), model.text(padded))


def test_a_sample_of_a_task_is_as_many_pairs_of_one_video() -> None:
    torch.manual_seed(0)
    model = small_model()
    task = Task(model, Ranking(RankingSettings()))
    assert task.fields == ("features", "tokens", "mask", "videos")
    features, tokens = torch.rand(3, 4, 6), torch.randint(1, 9, (3, 4, 2))
    mask, videos = torch.ones(3, 4, dtype=torch.bool), torch.tensor([7, 8, 7])
    loss = task(features, tokens, mask, videos)
    each = videos.repeat_interleave(4)
    expected = ranking(model.embed(features.view(12, 6)), model.text(tokens.view(12, 2)), each)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward(loss)
    gradients = [weight.grad for weight in model.parameters()]
    assert all(each is not None and each.isfinite().all() and each.ne(0).any() for each in gradients)


def released() -> dict[str, Tensor]:
    """A state as the authors' program saves it; the batch norms are there and never called."""
    state = {"text_pooling.fc.weight": torch.rand(7, 3), "text_pooling.fc.bias": torch.rand(7)}
    for tower, size in (("GU_text", 7), ("GU_video", 6)):
        state |= {f"{tower}.fc.weight": torch.rand(5, size), f"{tower}.fc.bias": torch.rand(5)}
        state |= {f"{tower}.cg.fc.weight": torch.rand(5, 5), f"{tower}.cg.fc.bias": torch.rand(5)}
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"{tower}.cg.batch_norm.{name}"] = torch.rand(5)
        state[f"{tower}.cg.batch_norm.num_batches_tracked"] = torch.tensor(0)
    return state


def test_released_weights_give_what_the_release_computes() -> None:
    model, state = small_model(), released()
    load_howto100m_ranking(model, state)
    tokens, features = torch.tensor([[1, 4, 2]]), torch.rand(1, 6)

    def unit(tower: str, x: Tensor) -> Tensor:
        y = F.linear(x, state[f"{tower}.fc.weight"], state[f"{tower}.fc.bias"])
        gate = F.linear(y, state[f"{tower}.cg.fc.weight"], state[f"{tower}.cg.fc.bias"])
        return F.normalize(F.glu(torch.cat((y, gate), 1), 1))

    words = model.text.word_embd(tokens)
    said = F.relu(F.linear(words, state["text_pooling.fc.weight"], state["text_pooling.fc.bias"])).max(dim=1)[0]
    torch.testing.assert_close(model.text(tokens), unit("GU_text", said))
    torch.testing.assert_close(model.embed(features), unit("GU_video", features))
    with pytest.raises(InputError, match=r"video\.fc\.weight is \(5, 9\), not \(5, 6\)"):
        load_howto100m_ranking(model, {**state, "GU_video.fc.weight": torch.rand(5, 9)})
    del state["GU_text.fc.bias"]
    with pytest.raises(InputError, match=r"text\.unit\.fc\.bias is not there"):
        load_howto100m_ranking(model, state)


# A training


@pytest.fixture(scope="module")
def recipe(features_root: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gated")
    settings = {
        "data": {"root": features_root.url, "export": "rows", "batch": 8, "clips": {"pairs": 8}},
        "model": {
            "name": "gated",
            "streams": {"2d": 10, "3d": 6},
            "embedding": 32,
            "text": {"hidden": 32, "word_dim": 16, "max_words": 8},
        },
        "objective": {"name": "ranking"},
        "optimiser": {"lr": 5e-3},
        "schedule": {"name": "decay", "decay": 0.98, "steps": 60},
        "engine": {"ranks": 2, "device": "cpu", "threads": 1},
        "evaluation": {"every": 30, "split": "test", "batches": 1},
        "output": {"folder": str(folder / "run"), "checkpoint_every": 20, "keep": 3},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def trained(recipe: Path) -> TrainResult:
    return launch(recipe)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def test_a_training_learns_to_find_what_is_said(trained: TrainResult, features_root: Root, tmp_path: Path) -> None:
    found = losses(Path(trained.folder))
    assert sum(found[-5:]) < 0.5 * sum(found[:5])
    lines = read_metrics(Path(trained.folder) / "metrics.jsonl")
    assert [line["step"] for line in lines if "val_loss" in line] == [30, 60]
    assert lines[0]["tflops"] > 0
    in_export = evaluate_retrieval(Path(trained.folder), features_root.url, export="rows")
    assert in_export.candidates == len(THINGS)
    assert in_export.r1 > 6 * in_export.chance.r1
    rows = [f"f{n},{3 * scene},{3 * scene + 2},{thing}" for n in range(9) for scene, thing in enumerate(things_of(n))]
    rows += ["gone,0,1,egg", "bare,0,1,egg", "f0,99,100,egg"]
    (tmp_path / "pairs.csv").write_text("\n".join(["video_id,start,end,text", *rows]))
    shutil.copytree(features_root.url, tmp_path / "root")
    root = Root(str(tmp_path / "root")).open()
    bare = next(root.table(Media).rows()).model_copy(update={"video_id": "demo:bare"})
    root.table(Media).append([{**bare.model_dump(), "made_by": "test", "made_from": "test"}])
    in_root = evaluate_retrieval(Path(trained.folder), root.url, pairs=tmp_path / "pairs.csv")
    assert (in_root.candidates, in_root.of) == (9 * SCENES, 9 * SCENES + 3)
    lacking = f"no features 2d, 3d; run `sayso features --root {root.url}`"
    assert in_root.missing == {"gone": "not in the root", "bare": lacking}
    assert in_root.r5 > 4 * in_root.chance.r5


def test_it_goes_on_with_the_losses_of_an_unbroken_run(trained: TrainResult, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    reached = latest(folder / "checkpoints")
    epoch, step = divmod(20, reached.reader["samples"] // 8)
    reader = {**reached.reader, "epoch": epoch, "position": 8 * step}
    point_to(folder / "checkpoints", Latest(step=20, reader=reader))  # as if it had been killed then
    launch(recipe, [f"output.folder={folder}"])
    starts = (folder / "starts.jsonl").read_text().splitlines()
    assert [json.loads(start)["from_step"] for start in starts] == [0, 20]
    assert losses(folder) == losses(Path(trained.folder))


def test_what_is_saved_is_the_model_with_its_choice(trained: TrainResult) -> None:
    found = load_model(Path(trained.model))
    assert isinstance(found.model, GatedVideoText)
    assert isinstance(found.card.model, GatedSettings)
    assert found.card.normalised
    card = json.loads((Path(trained.model) / "model.json").read_text())
    assert (card["model"]["name"], card["model"]["streams"]) == ("gated", {"2d": 10, "3d": 6})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.streams={2d: 10}", r"model\.streams \{'2d': 10\} are to be those of .*rows, \{'2d': 10, '3d': 6\}"),
        (
            "model.streams={2d: 6, 3d: 10}",
            r"model\.streams .* are to be those of .*rows",
        ),  # as many, the wrong way round
        ("model.streams={2d: 10, 3D: 6}", r"model\.streams .* are to be those of .*rows"),
        ("model={}", r"model\.name video_text looks at frames, and .*rows has none"),
    ],
)
def test_samples_of_another_kind_are_refused_before_anything_starts(
    override: str, message: str, recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        launch(recipe, [override, f"output.folder={tmp_path / 'run'}"])


def test_features_are_not_looked_for_in_an_export_of_clips(recipe: Path, small_root: Root, tmp_path: Path) -> None:
    there = [
        f"data.root={small_root.url}",
        "data.export=clips",
        "evaluation.every=null",
        f"output.folder={tmp_path / 'run'}",
    ]
    with pytest.raises(ConfigError, match=r"model\.name gated looks at features, and .*clips has none"):
        launch(recipe, [*there, "evaluation.every=null"])


# The protocols


def measure(protocol: Protocol, embedder: Embedder, root: Root) -> Report:
    videos = videos_in_root(protocol.video_ids(), root)
    return evaluate(protocol, embedder, videos, annotations=Path("annotations"), model="model")


@pytest.fixture(scope="module")
def embedder(trained: TrainResult) -> Embedder:
    return Embedder(load_model(Path(trained.model)), "cpu")


@torch.inference_mode()
def test_a_clip_is_what_lies_in_its_window(embedder: Embedder, features_root: Root) -> None:
    pairs = [Pair("f0", 0, 2, things_of(0)[0]), Pair("f1", 3, 5.5, things_of(1)[1]), Pair("f2", 17, 90, "now")]
    found = measure(YouCook2(pairs), embedder, features_root)
    seen = dict(seen_in_root(pairs, videos_in_root(["f0", "f1", "f2"], features_root), sight_of(embedder), windows=9))
    rows_by_hand = [((0, 2), (0, 3)), ((3, 6), (4, 9)), ((17, 18), (25, 27))]
    for pair, (frames, moves) in zip(pairs, rows_by_hand, strict=True):
        parts = []
        for name, (first, last) in (("2d", frames), ("3d", moves)):
            rows = np.load(Path(features_root.storage.path(f"media/{pair.video_id}/features/{name}.npy")))
            parts.append(F.normalize(torch.from_numpy(rows[first:last].astype(np.float32)).amax(dim=0), dim=0))
        expected = embedder.trained.model.embed(torch.cat(parts)[None])
        torch.testing.assert_close(seen[pair], expected)
    assert (found.used, found.of) == (3, 3)
    assert found.windows == 1, "a clip is seen at once"


def test_steps_are_found_in_features(embedder: Embedder, features_root: Root, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    (folder / "annotations").mkdir(parents=True)
    videos, tasks = [], []
    for number in range(5):
        steps = things_of(number)[:3]  # all in the first half
        tasks.append(f"{number}\ntask {number}\nhttp://x\n3\n{','.join(steps)}\n")
        videos.append(f"{number},f{number},http://x")
        stretches = [f"{step + 1},{3 * step},{3 * step + 2}" for step in range(3)]
        (folder / "annotations" / f"{number}_f{number}.csv").write_text("\n".join(stretches))
    (folder / "tasks_primary.txt").write_text("\n".join(tasks))
    (folder / "videos_val.csv").write_text("\n".join(videos))
    found = measure(CrossTask.read(folder), embedder, features_root)
    assert found.metrics["recall"] > 80 > 60 > found.chance["recall"]


def test_a_root_without_features_says_how_to_make_them(
    embedder: Embedder, trained: TrainResult, small_root: Root, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"none of its 1 videos is there \(red0: no features 2d, 3d; run `sayso feat"):
        measure(YouCook2([Pair("red0", 0, 5, "red")]), embedder, small_root)
    (tmp_path / "pairs.csv").write_text("video_id,start,end,text\nred0,0,5,red\n")
    with pytest.raises(InputError, match="no features 2d, 3d; run `sayso features --root"):
        evaluate_retrieval(Path(trained.folder), small_root.url, pairs=tmp_path / "pairs.csv")
    with pytest.raises(InputError, match=r"has no features 2d, 3d.* export of kind features"):
        evaluate_retrieval(Path(trained.folder), small_root.url, export="clips")


def test_features_of_another_size_are_refused(embedder: Embedder, features_root: Root) -> None:
    other = embedder.trained.card.model.model_copy(update={"streams": {"2d": 10, "3d": 7}})
    card = embedder.trained.card.model_copy(update={"model": other})
    strange = Embedder(replace(embedder.trained, card=card), "cpu")
    with pytest.raises(InputError, match=r"the features 3d of demo:f0 have 6 numbers \(made up\) and .* takes 7"):
        measure(YouCook2([Pair("f0", 0, 5, "egg")]), strange, features_root)


def test_features_of_another_origin_are_refused(embedder: Embedder, features_root: Root) -> None:
    """As many numbers of another model would give figures of nothing."""
    assert embedder.trained.card.origins == {
        "2d": "made up at 1 rows a second", "3d": "made up at 1.5 rows a second"
    }  # fmt: skip
    card = embedder.trained.card.model_copy(update={"origins": {"3d": "another at 1.5 rows a second"}})
    strange = Embedder(replace(embedder.trained, card=card), "cpu")
    message = r"the features 3d of .*f0 are of made up at 1\.5 rows a second, .* trained on those of another at 1\.5"
    with pytest.raises(InputError, match=message):
        measure(YouCook2([Pair("f0", 0, 5, "egg")]), strange, features_root)
    reader = ClipReader(f"{features_root.url}/shards/rows", split="test", settings=ReaderSettings(), seed=0)
    with pytest.raises(InputError, match=r"the features 3d of .* are of made up"):
        list(seen_in_export(reader, sight_of(strange), windows=1, progress=lambda done, total: None))


def test_exports_of_features_of_two_origins_are_not_mixed(embedder: Embedder, features_root: Root) -> None:
    reader = ClipReader(f"{features_root.url}/shards/rows", split="test", settings=embedder.clips, seed=0)
    clip = next(iter(reader))
    model = embedder.trained.card.model
    assert check_clips(model, [("one", clip), ("two", clip)]) == embedder.trained.card.origins
    other = clip | {"origins": {"2d": "another"}}
    with pytest.raises(ConfigError, match="the features 2d of two are of another, and those before it of made up"):
        check_clips(model, [("one", clip), ("two", other)])


def test_a_model_without_a_tower_over_frames_has_no_mixed_5c(embedder: Embedder, features_root: Root) -> None:
    protocol = HMDB51([Labelled("f0", "run", ("1", "1", "1"))])
    with pytest.raises(InputError, match="a gated model has no mixed_5c"):
        measure(protocol, embedder, features_root)


def test_a_model_over_frames_does_not_look_at_features(features_root: Root, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no video, which the model looks at"):
        evaluate_retrieval(random_model(tmp_path / "model"), features_root.url, export="rows")
