"""What a trained model makes of windows of video, of features and of sentences.

Every call raises WorkFailed where the model gives what is no number.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sayso.errors import ConfigError
from shards.reader import ReaderSettings
from train.data import frames_to_device
from train.evaluate.metrics import check_finite
from train.models.gated import GatedSettings
from train.weights import Trained

TEXTS_AT_ONCE = ROWS_AT_ONCE = 1024
WINDOWS_AT_ONCE = 16
EMBEDDING = "embedding"
"""The output that is compared with sentences."""


class Embedder:
    """A trained model on a device."""

    def __init__(self, trained: Trained, device: str = "auto", *, size: int | None = None) -> None:
        """`device` is a name as torch knows them; auto takes CUDA where it is there.

        `size` is the side of the pictures to look at where that is not the one of training, as for the published model
        of 200 px, which is evaluated at 224. ConfigError for a model that looks at features.
        """
        if size is not None and isinstance(trained.card.model, GatedSettings):
            raise ConfigError("the model looks at features, not at pictures; leave --size out")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.trained = trained
        own = trained.card.clips
        self.clips: ReaderSettings = own if size is None else own.model_copy(update={"size": size, "short_side": None})
        """The clips that the model was trained on, or such of another size."""
        self._model = trained.model.to(self.device)

    def windows(self, windows: Iterable[Tensor], output: str = EMBEDDING) -> Tensor:
        """Windows, each uint8 (T, H, W, 3) -> (N, D), one of the video tower's outputs, on the CPU."""
        return torch.cat([self._look(torch.stack(some), output) for some in _batches(windows)])

    @torch.inference_mode()
    def _look(self, windows: Tensor, output: str) -> Tensor:
        outputs: dict[str, Tensor] = self._model.video(frames_to_device(windows, self.device))
        return self._compared(outputs[output]) if output == EMBEDDING else _numbers(outputs[output])

    @torch.inference_mode()
    def features(self, rows: Tensor) -> Tensor:
        """Features, float (N, F), each stream of length 1 -> (N, D) on the CPU."""
        parts = torch.split(rows, ROWS_AT_ONCE)
        return torch.cat([self._compared(self._model.embed(part.to(self.device))) for part in parts])

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """N sentences -> (N, D) on the CPU."""
        tokens = torch.split(self.trained.vocabulary.encode(texts), TEXTS_AT_ONCE)
        return torch.cat([self._compared(self._model.text(part.to(self.device))) for part in tokens])

    def _compared(self, embeddings: Tensor) -> Tensor:
        """Embeddings as the objective compared them."""
        found = _numbers(embeddings)
        return F.normalize(found, dim=1) if self.trained.card.normalised else found


def _numbers(outputs: Tensor) -> Tensor:
    """What a tower gives, fp32 on the CPU. WorkFailed where it is no number."""
    found = outputs.float().cpu()
    check_finite(found)
    return found


def _batches(windows: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for window in windows:
        batch.append(window)
        if len(batch) == WINDOWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
