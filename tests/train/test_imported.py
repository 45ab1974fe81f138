"""Released weights with their words become a model that commands take, and give what they give by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ops.cli import app
from sayso.errors import InputError
from train.evaluate.embed import Embedder
from train.imported import import_howto100m
from train.models.s3dg import S3DG, S3DGSettings, Stem, howto100m_state, load_howto100m
from train.models.video_text import VideoText, VideoTextSettings
from train.weights import load_model

WORDS = ["cut", "the", "onion", "slowly"]


def release(folder: Path, stem: Stem, *, prefix: str = "") -> tuple[Path, Path]:
    """Weights and words as they are published, but for their numbers and how many words there are."""
    torch.manual_seed(2)
    model = VideoText(VideoTextSettings(video=S3DGSettings(stem=stem)), words=len(WORDS) + 1, word_dim=300)
    with torch.no_grad():
        model.text.word_embd.weight[0] = 0.5  # the release's padding is a word like others
    state: Any = {f"{prefix}{name}": weight for name, weight in howto100m_state(model).items()}
    weights, words = folder / "s3d_howto100m.pth", folder / "s3d_dict.npy"
    torch.save({"epoch": 3, "state_dict": state} if prefix else state, weights)
    np.save(words, np.array(WORDS))
    return weights, words


@pytest.mark.parametrize("stem", get_args(Stem))
def test_it_embeds_as_the_released_modules_do(stem: Stem, tmp_path: Path) -> None:
    weights, words = release(tmp_path, stem, prefix="module." if stem == "plain" else "")
    output = tmp_path / "released"
    command = ["import-weights", str(weights), "--words", str(words), "--output", str(output), "--json"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert (told["model"], told["words"]) == (str(output), 4)
    embedder = Embedder(load_model(output))
    clips = embedder.clips
    assert (clips.frames, clips.fps, clips.size) == ((32, 10, 224) if stem == "space_to_depth" else (16, 5, 224))

    state = torch.load(weights, weights_only=True)
    tower = S3DG(stem)
    load_howto100m(tower, state)
    frames = torch.randint(0, 256, (1, 4, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = tower.eval()(frames.permute(0, 4, 1, 2, 3) / 255)["embedding"]
    torch.testing.assert_close(embedder.windows([frames[0]]), expected, rtol=1e-4, atol=1e-5)

    named = {name.removeprefix("module."): weight for name, weight in state.get("state_dict", state).items()}
    text = {name.removeprefix("text_module."): weight for name, weight in named.items() if "text_module" in name}
    ids = torch.tensor([1, 3] + [0] * 28)  # "Cut onion!", to 30 words
    words_in = torch.relu(text["word_embd.weight"][ids] @ text["fc1.weight"].T + text["fc1.bias"])
    expected = words_in.amax(dim=0) @ text["fc2.weight"].T + text["fc2.bias"]
    torch.testing.assert_close(embedder.texts(["Cut onion!"])[0], expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_belong_together_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    weights, words = release(tmp_path, "plain")
    output = tmp_path / "released"
    np.save(tmp_path / "few.npy", np.array(WORDS[:2]))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "numbers.npy", np.zeros(4))
    for wrong, message in {
        "few.npy": r"few\.npy has 2 words and .* vectors of 4; give the file of words that was released",
        "objects.npy": r"objects\.npy: not a file of words",
        "numbers.npy": r"numbers\.npy: not a file of words",
        "nothing.npy": r"nothing\.npy: not a file of words",
    }.items():
        with pytest.raises(InputError, match=message):
            import_howto100m(weights, tmp_path / wrong, output)
    with pytest.raises(InputError, match="not weights that can be read without running code"):
        import_howto100m(words, words, output)
    state = torch.load(weights, weights_only=True)
    torch.save({name: weight for name, weight in state.items() if "text_module" not in name}, weights)
    with pytest.raises(InputError, match="has no text tower"):
        import_howto100m(weights, words, output)
    torch.save({**state, "another": torch.ones(1)}, weights)
    with pytest.raises(InputError, match=r"s3d_howto100m\.pth: the weights are not this model's in 1 entries"):
        import_howto100m(weights, words, output)
    assert not output.exists()
    output.mkdir()
    (output / "notes").touch()
    with pytest.raises(InputError, match="is there and not empty; give another folder"):
        import_howto100m(weights, words, output)
