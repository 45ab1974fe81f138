"""A model's folder whose files are broken, or of two models, is told apart from one that can be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sayso.errors import InputError
from tests.films import random_model
from train.weights import load_model


def cut_off(model: Path) -> None:
    path = model / "model.pt"
    path.write_bytes(path.read_bytes()[:-100])


def of_other_words(model: Path) -> None:
    words = [f"word {number}" for number in range(40)]
    (model / "vocabulary.json").write_text(json.dumps({"max_words": 8, "words": words}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: (model / "model.pt").write_bytes(b""), r"model\.pt is not a model .*cut off"),
        (lambda model: (model / "model.pt").write_bytes(b"junk"), r"model\.pt is not a model .*not written by torch"),
        (cut_off, r"model\.pt is not a model .*cut off"),
        (lambda model: torch.save([1, 2], model / "model.pt"), r"model\.pt is not a model .*dict"),
        (
            lambda model: torch.save({"fc": torch.ones(1)}, model / "model.pt"),
            r"model\.pt is not a model .*Missing key",
        ),
        (lambda model: torch.save(Path("x"), model / "model.pt"), r"model\.pt is not a model .*more than tensors"),
        (lambda model: (model / "model.json").write_text("{"), r"model\.json is not a model's card"),
        (lambda model: (model / "model.json").write_text("[]"), r"model\.json: .*dictionary"),
        (lambda model: (model / "vocabulary.json").write_text("[]"), r"vocabulary\.json is not a vocabulary"),
        (of_other_words, r"vocabulary\.json is of another model: 8 words .* it has 40; copy"),
    ],
)
def test_files_that_are_no_model_are_named(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    model = random_model(tmp_path / "model")
    load_model(model)
    spoil(model)
    with pytest.raises(InputError, match=message) as raised:
        load_model(model)
    assert "\n" not in str(raised.value)
