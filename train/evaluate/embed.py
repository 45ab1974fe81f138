"""What a trained model makes of windows of video and of sentences."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from shards.reader import ReaderSettings
from train.data import frames_to_device
from train.weights import Trained

TEXTS_AT_ONCE = 1024
WINDOWS_AT_ONCE = 16


class Embedder:
    """A trained model on a device."""

    def __init__(self, trained: Trained, device: str = "auto") -> None:
        """`device` is a name as torch knows them; auto takes CUDA where it is there."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.trained = trained
        self._model = trained.model.to(self.device)

    @property
    def clips(self) -> ReaderSettings:
        """The clips that the model was trained on."""
        return self.trained.card.clips

    @property
    def seconds(self) -> float:
        """How long a window is."""
        return self.clips.frames / self.clips.fps

    def windows(self, windows: Iterable[Tensor], output: str = "embedding") -> Tensor:
        """Windows, each uint8 (T, H, W, 3) -> (N, D), one of the video tower's outputs, on the CPU."""
        return torch.cat([self._look(torch.stack(some), output) for some in _batches(windows)])

    @torch.inference_mode()
    def _look(self, windows: Tensor, output: str) -> Tensor:
        outputs: dict[str, Tensor] = self._model.video(frames_to_device(windows, self.device))
        return outputs[output].float().cpu()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """N sentences -> (N, D) on the CPU."""
        tokens = torch.split(self.trained.vocabulary.encode(texts), TEXTS_AT_ONCE)
        return torch.cat([self._model.text(part.to(self.device)).float().cpu() for part in tokens])


def _batches(windows: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for window in windows:
        batch.append(window)
        if len(batch) == WINDOWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
