"""Models of single images: they see one frame a row, its colours shifted and scaled.

    transformers  a folder, or a name on the hub  -> pooler_output; where weights have no pooler, the mean over tokens
    onnx          a file, run by onnxruntime      -> pooler_output; where there is none, the first output

What there is beside (B, D) is averaged: tokens (B, tokens, D), maps (B, D, height, width).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sayso.errors import ConfigError, InputError, ModelNotFound
from sayso.storage import hash_file
from train.data import frames_to_device
from train.features.frozen import FrozenModel, Look, first_line
from train.features.hub import hub_folder
from train.features.settings import Colour
from train.features.windows import Sight

_IMAGENET: tuple[Colour, Colour] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_USUAL_SIZE = 224
_UNCROPPED_FROM = 384
"""From this size on, in px, ConvNeXt's preprocessor, which ResNets have too, heeds crop_pct no more."""


class ImageModel(FrozenModel):
    """What both kinds have in common."""

    def _see(self, digest: str, size: int, short_side: int, colours: tuple[Colour, Colour]) -> tuple[Sight, str]:
        """What the model sees, which the settings may change, and its name."""
        own = self.settings
        self.colours = own.mean or colours[0], own.std or colours[1]
        mean, std = ([round(value, 6) for value in values] for values in self.colours)
        sight = Sight(self._crop(size, short_side))
        return sight, f"{own.kind} {digest[:16]}, {sight}, mean {mean}, std {std}"

    def _pixels(self, windows: Tensor, device: torch.device) -> Tensor:
        """uint8 (B, 1, size, size, 3) -> float32 (B, 3, size, size)."""
        pixels = frames_to_device(windows, device)[:, :, 0]
        mean, std = (torch.tensor(values, device=device)[None, :, None, None] for values in self.colours)
        return (pixels - mean) / std


class Transformers(ImageModel):
    """An image model that transformers' AutoModel knows; of a model of images and texts its vision part."""

    def _find(self) -> tuple[Sight, str]:
        self.folder = hub_folder(self.wanted, offline=self.offline)
        files = [self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))]
        if len(files) < 2 or not files[0].is_file():
            raise ModelNotFound(
                f"{self.wanted}: no config.json with *.safetensors; `model.save_pretrained(folder)` writes both"
            )
        digest = hashlib.sha256("".join(hash_file(path)[0] for path in files).encode()).hexdigest()
        config, said = _read_json(files[0]), _read_json(self.folder / "preprocessor_config.json")
        size, short_side = _sizes(said, config.get("vision_config", config).get("image_size"))
        colours = _IMAGENET
        if "image_mean" in said and "image_std" in said:
            colours = tuple(said["image_mean"]), tuple(said["image_std"])
        if said.get("do_normalize") is False:
            colours = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return self._see(digest, size, short_side, colours)

    def load(self, device: torch.device) -> Look:
        """The model; InputError where its weights are not all there, which transformers would draw at random."""
        from transformers import AutoModel

        try:
            whole, report = AutoModel.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            raise InputError(f"{self.wanted}: not a model that transformers loads ({first_line(error)})") from None
        missing = sorted(report["missing_keys"])
        others = [name for name in missing if "pooler" not in name]
        if others:
            raise InputError(f"{self.wanted}: {len(others)} weights are not there, the first: {others[0]}")
        model = getattr(whole, "vision_model", whole).eval().to(device)

        def look(windows: Tensor) -> Tensor:
            found = model(pixel_values=self._pixels(windows, device))
            pooled = None if missing else getattr(found, "pooler_output", None)
            return as_rows(found.last_hidden_state if pooled is None else pooled).float().cpu()

        return look


class Onnx(ImageModel):
    """An ONNX file with one input, pixels (B, 3, size, size)."""

    def _find(self) -> tuple[Sight, str]:
        own = self.settings
        self.path = Path(self.wanted).expanduser().resolve()
        if not self.path.is_file():
            raise ModelNotFound(f"stream {own.name}: no file {self.wanted}; give a model's .onnx file")
        shapes = [node.shape for node in self._session("CPUExecutionProvider").get_inputs()]
        # A side that is not fixed has a name, or nothing.
        if len(shapes) != 1 or len(shapes[0]) != 4 or (isinstance(shapes[0][1], int) and shapes[0][1] != 3):
            raise InputError(f"{self.wanted}: its inputs are {shapes}, not one of (B, 3, height, width)")
        self.one_by_one = shapes[0][0] == 1
        fixed = next((side for side in shapes[0][2:] if isinstance(side, int)), None)
        if fixed and own.size not in (None, fixed):
            raise ConfigError(f"stream {own.name}: size is {own.size}, but {self.wanted} takes {fixed}")
        size = fixed or _USUAL_SIZE
        return self._see(hash_file(self.path)[0], size, size, _IMAGENET)

    def _session(self, provider: str) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Sums of several threads come out in another order on another number of cores.
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors; of warnings there may be a line a weight
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=[provider])
        except Exception as error:  # noqa: BLE001  onnxruntime's errors have no other class in common
            raise InputError(f"{self.wanted}: not a model that onnxruntime loads ({first_line(error)})") from None

    def load(self, device: torch.device) -> Look:
        """A session on the device; ConfigError where the installed onnxruntime cannot use it."""
        import onnxruntime

        provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise ConfigError("features.device: this onnxruntime has no CUDA; install onnxruntime-gpu, or take cpu")
        session = self._session(provider)
        taken = session.get_inputs()[0].name
        outputs = [node.name for node in session.get_outputs()]
        given = "pooler_output" if "pooler_output" in outputs else outputs[0]

        def look(windows: Tensor) -> Tensor:
            pixels = self._pixels(windows, torch.device("cpu")).numpy()
            pieces = [pixels[i : i + 1] for i in range(len(pixels))] if self.one_by_one else [pixels]
            return as_rows(torch.cat([torch.from_numpy(session.run([given], {taken: some})[0]) for some in pieces]))

        return look


def as_rows(found: Tensor) -> Tensor:
    """(B, D) as it is; (B, tokens, D) and (B, D, height, width) -> their mean (B, D)."""
    if found.ndim == 3:
        return found.mean(dim=1)
    return found if found.ndim == 2 else found.flatten(2).mean(dim=2)


def _sizes(said: Mapping[str, Any], image_size: int | None) -> tuple[int, int]:
    """Side of the square and short side before it is cut out, as a preprocessor's configuration has them."""
    crop, scaled = (_side(said.get(name)) for name in ("crop_size", "size"))
    size = crop or scaled or image_size or _USUAL_SIZE
    if scaled and said.get("crop_pct") and scaled < _UNCROPPED_FROM:
        scaled = int(scaled / said["crop_pct"])
    return size, max(size, scaled or size)


def _side(said: Any) -> int | None:
    """The one side in `224`, {"height": 224, "width": 224} or {"shortest_edge": 256}; None where there is none."""
    if isinstance(said, Mapping):
        said = said.get("shortest_edge") or said.get("height")
    return int(said) if said else None


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no such file."""
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
