"""The models whose features are computed, from the files that they come in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from sayso.errors import ConfigError, InputError, ModelNotFound
from tests.films import MEANS, MEANS_OF_ONE, random_model
from train.features.models import find_model
from train.features.settings import FeaturesSettings, StreamSettings
from train.models.s3dg import S3DG
from train.weights import load_model

CPU = torch.device("cpu")


def stream(kind: str, model: Path | str, **more: Any) -> StreamSettings:
    return StreamSettings.model_validate({"name": "x", "fps": 1, "kind": kind, "model": str(model), **more})


def looked(settings: StreamSettings, windows: Tensor) -> Tensor:
    with torch.inference_mode():
        found = find_model(settings, offline=True).load(CPU)(windows)
    assert found.dtype == torch.float32
    return found


def pictures(count: int, frames: int, size: int) -> Tensor:
    return torch.randint(0, 256, (count, frames, size, size, 3), dtype=torch.uint8)


@pytest.mark.parametrize("stem", ["plain", "space_to_depth"])
def test_released_weights_of_either_stem_are_told_apart_by_themselves(stem: Any, tmp_path: Path) -> None:
    tower = S3DG(stem).eval()
    state = {**tower.state_dict(), "text_module.fc1.weight": torch.zeros(3)}
    training = {"state_dict": {f"module.{name}": weight for name, weight in state.items()}, "epoch": 3}
    torch.save(training if stem == "plain" else state, tmp_path / "s3d.pth")
    settings = stream("s3d", tmp_path / "s3d.pth")
    found = find_model(settings, offline=True)
    assert (found.sight.frames, found.sight.frame_fps, found.sight.crop.size) == (32, 10, 224)
    windows = pictures(2, 8, 64)
    with torch.inference_mode():
        wanted = tower(windows.permute(0, 4, 1, 2, 3) / 255)["mixed_5c"]
    assert looked(settings, windows).shape == (2, 1024)
    assert torch.allclose(looked(settings, windows), wanted, atol=1e-5)


def test_a_runs_model_sees_what_it_was_trained_on(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "model")
    found = find_model(stream("s3d", folder), offline=True)
    assert (found.sight.frames, found.sight.frame_fps) == (4, 5)
    assert (found.sight.crop.size, found.sight.crop.short_side) == (32, 37)
    windows = pictures(3, 4, 32)
    with torch.inference_mode():
        wanted = load_model(folder).model.video(windows.permute(0, 4, 1, 2, 3) / 255)["mixed_5c"]
    assert torch.allclose(looked(stream("s3d", folder), windows), wanted, atol=1e-6)
    other = find_model(stream("s3d", folder, frames=8, frame_fps=10, size=64), offline=True)
    assert (other.sight.frames, other.sight.crop.short_side) == (8, 64)
    assert len({found.name, other.name, find_model(stream("s3d", folder), offline=True).name}) == 2


TINY: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
SEEN: dict[str, Any] = {"image_size": 32, "patch_size": 8}


def saved(folder: Path, what: str) -> Any:
    """A tiny model with random weights, saved as transformers does."""
    clip = CLIPConfig(vision_config={**TINY, **SEEN}, text_config={**TINY, "vocab_size": 20}, projection_dim=8)
    model = {
        "vit": lambda: ViTModel(ViTConfig(**TINY, **SEEN)),
        "vit without pooler": lambda: ViTModel(ViTConfig(**TINY, **SEEN), add_pooling_layer=False),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**TINY, **SEEN)),
        "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])),
        "clip": lambda: CLIPModel(clip),
    }[what]()
    model.eval().save_pretrained(folder)
    return model


@pytest.mark.parametrize("what", ["vit", "vit without pooler", "dinov2", "resnet", "clip"])
def test_image_models_of_transformers(what: str, tmp_path: Path) -> None:
    model = saved(tmp_path, what)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": mean, "image_std": std, "size": {"shortest_edge": 40}, "crop_size": 32})
    )
    settings = stream("transformers", tmp_path)
    crop = find_model(settings, offline=True).sight.crop
    assert (crop.size, crop.short_side) == (32, 40)
    windows = pictures(3, 1, 32)
    pixels = (windows[:, 0] / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.inference_mode():
        out = getattr(model, "vision_model", model)(pixel_values=pixels.permute(0, 3, 1, 2))
    wanted = out.last_hidden_state.mean(1) if what == "vit without pooler" else out.pooler_output.reshape(3, -1)
    found = looked(settings, windows)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.equal(found, looked(settings, windows))


def test_a_model_of_transformers_says_its_size_itself(tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    crop = find_model(stream("transformers", tmp_path), offline=True).sight.crop
    assert (crop.size, crop.short_side) == (32, 32)
    crop = find_model(stream("transformers", tmp_path, size=24, short_side=30), offline=True).sight.crop
    assert (crop.size, crop.short_side) == (24, 30)


def test_colours_stay_where_a_preprocessor_leaves_them(tmp_path: Path) -> None:
    model = saved(tmp_path, "vit")
    said = {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    windows = pictures(2, 1, 32)
    with torch.inference_mode():
        wanted = model(pixel_values=windows[:, 0].permute(0, 3, 1, 2) / 255).pooler_output
    assert torch.allclose(looked(stream("transformers", tmp_path), windows), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "size", "short_side"),
    [
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 224, 256),  # ResNet's and ConvNeXt's
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, 384, 384),  # from 384 px on they cut nothing off
        ({"size": 224, "crop_pct": 0.9, "crop_size": {"height": 200, "width": 200}}, 200, 248),  # PoolFormer's
    ],
)
def test_a_part_that_is_cut_out_is_cut_out_of_a_larger_picture(
    said: dict[str, Any], size: int, short_side: int, tmp_path: Path
) -> None:
    saved(tmp_path, "resnet")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    crop = find_model(stream("transformers", tmp_path), offline=True).sight.crop
    assert (crop.size, crop.short_side) == (size, short_side)


@pytest.mark.parametrize(("model", "size"), [(MEANS, 20), (MEANS_OF_ONE, None)], ids=["any", "fixed"])
def test_onnx_files_are_run(model: bytes, size: int | None, tmp_path: Path) -> None:
    (tmp_path / "means.onnx").write_bytes(model)
    mean, std = (0.5, 0.25, 0.0), (1.0, 2.0, 4.0)
    settings = stream("onnx", tmp_path / "means.onnx", size=size, mean=mean, std=std)
    side = find_model(settings, offline=True).sight.crop.size
    assert side == (size or 32)
    windows = pictures(3, 1, side)
    wanted = (windows[:, 0].double().mean(dim=(1, 2)) / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert looked(settings, windows).numpy() == pytest.approx(wanted.numpy(), abs=1e-6)


def test_of_outputs_of_other_shapes_the_mean_is_taken() -> None:
    from train.features.images import as_rows

    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert as_rows(maps).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]
    assert (
        as_rows(maps.flatten(2).transpose(1, 2)).tolist() == as_rows(maps).tolist() == as_rows(as_rows(maps)).tolist()
    )


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    done = tmp_path / "done"
    (tmp_path / "s3d.pth").write_bytes(pickle.dumps({"conv1.conv1.weight": Evil(done)}, protocol=2))
    torch.save({"conv1.conv1.weight": Evil(done)}, tmp_path / "zipped.pth")
    for name in ("s3d.pth", "zipped.pth"):
        with pytest.raises(InputError, match="without running code"):
            find_model(stream("s3d", tmp_path / name), offline=True).load(CPU)
    folder = tmp_path / "vit"
    saved(folder, "vit")
    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil(done)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelNotFound, match="safetensors"):
        find_model(stream("transformers", folder), offline=True)
    assert not done.exists()


def test_weights_that_are_not_all_there_are_refused_and_not_drawn(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path, "vit")
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in sorted(weights) if "layernorm" in name.lower())
    del weights[gone]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are not there, the first: .*layernorm"):
        find_model(stream("transformers", tmp_path), offline=True).load(CPU)


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "fixed.onnx").write_bytes(MEANS_OF_ONE)
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save(S3DG(width=0.125).state_dict(), tmp_path / "narrow.pth")
    torch.save(S3DG("space_to_depth").state_dict(), tmp_path / "s3d.pth")
    (tmp_path / "empty").mkdir()
    wrong: list[tuple[StreamSettings, type[Exception], str]] = [
        (stream("s3d", tmp_path / "none.pth"), ModelNotFound, "give a file of S3D weights"),
        (stream("s3d", tmp_path / "empty"), ModelNotFound, "`sayso train` writes it"),
        (stream("s3d", tmp_path / "numbers.npy"), InputError, "not weights"),
        (stream("s3d", tmp_path / "other.pth"), InputError, "not weights of S3D-G"),
        (stream("s3d", tmp_path / "narrow.pth"), InputError, "narrow.pth: the weights are not this model's"),
        (stream("s3d", tmp_path / "s3d.pth", frames=15), ConfigError, "must be even, and are 15 and 224"),
        (stream("onnx", tmp_path / "none.onnx"), ModelNotFound, "no file"),
        (stream("onnx", tmp_path / "broken.onnx"), InputError, "not a model that onnxruntime loads"),
        (stream("onnx", tmp_path / "fixed.onnx", size=64), ConfigError, "takes 32"),
        (stream("onnx", tmp_path / "fixed.onnx", short_side=30), ConfigError, "short_side 30 is below 32, the size"),
        (stream("s3d", tmp_path / "narrow.pth", short_side=200), ConfigError, "short_side 200 is below 224, the size"),
        (stream("transformers", tmp_path / "empty"), ModelNotFound, "save_pretrained"),
        (stream("transformers", "./nowhere"), ModelNotFound, "no such folder"),
        (stream("transformers", "somebody/no-such-model"), ModelNotFound, "the hub was not asked"),
        (stream("transformers", "no name/at all"), ModelNotFound, "the hub has not got it"),
    ]
    for settings, kind, why in wrong:
        with pytest.raises(kind, match=why) as raised:
            find_model(settings, offline=True).load(CPU)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"kind": "s3d", "mean": [0, 0, 0]}, "kind s3d has no mean"),
        ({"kind": "onnx", "frames": 3, "frame_fps": 2}, "has no frames and no frame_fps"),
        ({"kind": "onnx", "size": 224, "short_side": 200}, "below size"),
        ({"kind": "vgg"}, "s3d"),
        ({"kind": "s3d", "name": "a.b"}, "pattern"),
    ],
)
def test_streams_that_make_no_sense_are_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        StreamSettings.model_validate({"name": "x", "fps": 1, **given})


def test_streams_have_different_names_and_come_by_them() -> None:
    names = [{"name": name, "fps": 1, "kind": "s3d", "model": "m"} for name in "ba"]
    assert [each.name for each in FeaturesSettings.model_validate({"streams": names}).wanted] == ["a", "b"]
    with pytest.raises(ValueError, match="different names"):
        FeaturesSettings.model_validate({"streams": [names[0], names[0]]})
    with pytest.raises(ConfigError, match="no stream has a model; give one"):
        FeaturesSettings().check()
