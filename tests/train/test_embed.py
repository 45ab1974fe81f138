"""Embeddings that are no numbers are no result, whatever asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sayso.errors import WorkFailed
from tests.films import random_model
from train.evaluate.embed import Embedder
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
