"""What a trained model is shown, and what it may answer: embeddings that are no numbers are no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sayso.errors import ConfigError, WorkFailed
from sayso.root import Root
from shards.crop import Crop
from shards.decode import decode
from tests.films import gated_model, random_model
from train.evaluate.embed import Embedder
from train.evaluate.pairs import Pair
from train.evaluate.protocol import evaluate
from train.evaluate.sight import seen_in_root, sight_of
from train.evaluate.text_to_clip import YouCook2
from train.evaluate.videos import videos_in_root
from train.weights import load_model

WINDOWS = torch.zeros((2, 4, 32, 32, 3), dtype=torch.uint8)


@pytest.fixture
def diverged(tmp_path: Path) -> Embedder:
    trained = load_model(random_model(tmp_path))
    with torch.no_grad():
        for weight in trained.model.parameters():
            weight.fill_(torch.nan)
    return Embedder(trained, "cpu")


@pytest.mark.parametrize(
    "ask",
    [
        lambda embedder: embedder.windows(WINDOWS),
        lambda embedder: embedder.windows(WINDOWS, "mixed_5c"),
        lambda embedder: embedder.texts(["now the red one"]),
    ],
)
def test_a_model_that_has_diverged_is_told(ask: Callable[[Embedder], Tensor], diverged: Embedder) -> None:
    with pytest.raises(WorkFailed, match="not numbers; its training has diverged"):
        ask(diverged)


def test_pictures_may_be_larger_than_in_training(tmp_path: Path, small_root: Root) -> None:
    trained = load_model(random_model(tmp_path))
    pair, videos = Pair("red0", 1, 3, "the red one"), videos_in_root(["red0"], small_root)
    larger, own = Embedder(trained, "cpu", size=48), Embedder(trained, "cpu")
    ((_, seen),) = seen_in_root([pair], videos, sight_of(larger), windows=1)
    data = small_root.storage.read("media/demo_red0/proxy.mp4")
    window = torch.from_numpy(decode(data, [1 + i / 5 for i in range(4)], Crop(48, 48)))
    torch.testing.assert_close(seen, own.windows([window]))
    sizes = []
    for embedder in (larger, own):
        found = evaluate(YouCook2([pair]), embedder, videos, annotations=Path("annotations"), model="model")
        sizes.append(found.size)
    assert sizes == [48, 32]


def test_features_have_no_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="looks at features, not at pictures; leave --size out"):
        Embedder(load_model(gated_model(tmp_path)), "cpu", size=224)
