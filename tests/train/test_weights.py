import json
from pathlib import Path

import pytest
import torch

from sayso.errors import InputError
from tests.films import random_model
from train.weights import load_model


@pytest.mark.parametrize("words", [7, 11])
def test_words_of_another_model_are_refused(words: int, tmp_path: Path) -> None:
    """Else some words have no vector, or all have another's."""
    folder = random_model(tmp_path / "model")
    path = folder / "vocabulary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "words": [f"word{n}" for n in range(words)]}))
    with pytest.raises(InputError, match=rf"vocabulary\.json is of another model: 8 words .* it has {words}; copy"):
        load_model(folder)


def test_a_file_of_something_else_is_no_model(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "model")
    torch.save([1, 2], folder / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt is not a model that sayso wrote"):
        load_model(folder)
