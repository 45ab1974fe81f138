"""The stage `features`: a proxy -> what frozen models make of its picture, row after row, and where that is stored.

    media/<video_id>/features/<stream>.npy    float16 (rows, dim), written row by row while the proxy is decoded once

The same proxy gives the same bytes on the same kind of device. What row i stands for: train/features/windows.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from sayso.errors import ConfigError, CorruptObject, Permanent, Skip
from sayso.root import Root
from sayso.rows import Features, FeatureStream, Media
from sayso.stage import Resources, Stage
from sayso.storage import hash_file, no_space_named
from shards.decode import Pixels
from shards.features import origin
from train.features.frozen import FrozenModel, Look, first_line
from train.features.models import find_model
from train.features.settings import FeaturesSettings, StreamSettings
from train.features.windows import View, rows_of, windows


class MakeFeatures(Stage[Media, Features]):
    """Looks at each proxy with the models of all streams."""

    name: ClassVar[str] = "features"
    reads = Media
    writes = Features

    def __init__(self, root: Root, settings: FeaturesSettings) -> None:
        super().__init__(root)
        self.settings = settings
        # Settled here, where the run begins: a worker that took CUDA without having asked the cluster for a GPU would
        # share the first one of its machine with all others, under a cap of memory that CUDA does not start with.
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(auto if settings.device == "auto" else settings.device)
        self.resources = Resources(cpus=1.0, gpus=1.0 if self.device.type == "cuda" else 0.0)
        self.checked: _Told | None = None
        """What the streams were when the run began: workers on other machines must have the same."""

    def check(self) -> None:
        """Find the models. ConfigError where the root has features of others: those of all videos are to be alike."""
        self.checked = _told(self._find())
        there = next(self.root.table(Features).rows(), None)
        if there is not None:
            known = {stream.name: origin(stream.model, stream.fps) for stream in there.streams}
            _compare(
                self.checked, known, "this root has features of other streams", "set them back, or take another root"
            )

    def time_limit(self, row: Media) -> float:
        """Grows with the duration."""
        return self.settings.seconds_at_least + self.settings.seconds_per_second * row.duration

    def video_seconds(self, row: Media, made: Sequence[Features]) -> float:
        """The proxy's duration."""
        return row.duration

    def open(self) -> None:
        """Load the models. ConfigError where they are others here than where the run was begun, or cannot look so."""
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("features.device: there is no CUDA on this machine; take cpu")
        self.models = self._find()
        if self.checked is not None:
            _compare(_told(self.models), self.checked, "a worker's machine has other models", "give all the same files")
        self.looks = {name: model.load(self.device) for name, model in self.models.items()}
        with _one_thread():  # as many workers as cores do so at once
            for name, look in self.looks.items():
                _try(look, self.models[name])

    def _find(self) -> dict[str, FrozenModel]:
        self.settings.check()
        return {each.name: find_model(each, offline=self.settings.offline) for each in self.settings.wanted}

    def __call__(self, row: Media) -> Sequence[Features]:
        """One row, its arrays published.

        Raises Skip("no_picture"), Permanent("corrupt_proxy") where the proxy is missing, is not what its row says or
        cannot be decoded, and Permanent("not_finite") where a model gives what float16 cannot hold.
        """
        if not row.width:
            raise Skip("no_picture", "the video has sound only")
        with tempfile.TemporaryDirectory(prefix="sayso-") as name, no_space_named(name), _one_thread():
            arrays = self._look(row, Path(name))
            streams = [self._publish(row, array) for array in arrays]
        return [Features(video_id=row.video_id, streams=streams)]

    def _look(self, row: Media, folder: Path) -> list[_Array]:
        """Arrays of all streams, in their order."""
        views = {
            name: View(model.sight, model.settings.fps, rows_of(row.duration, model.settings.fps))
            for name, model in self.models.items()
        }
        arrays = {
            name: _Array(model.settings, self.looks[name], folder / f"{name}.npy", views[name].rows)
            for name, model in self.models.items()
        }
        try:
            with self.root.storage.local(row.key) as proxy:
                if hash_file(proxy) != (row.sha256, row.bytes):
                    raise Permanent("corrupt_proxy", f"{row.key}: not the bytes that its row says")
                for name, window in windows(proxy, views):
                    arrays[name].put(window)
        except FileNotFoundError:
            raise Permanent("corrupt_proxy", f"{row.key}: missing") from None
        except CorruptObject as error:
            raise Permanent("corrupt_proxy", f"{row.key}: {error}") from None
        for array in arrays.values():
            array.end()
        return list(arrays.values())

    def _publish(self, row: Media, array: _Array) -> FeatureStream:
        settings = array.settings
        stored = self.root.storage.put_file(array.path, f"media/{row.video_id}/features/{settings.name}.npy")
        return FeatureStream(
            **stored.model_dump(),
            name=settings.name,
            rows=array.rows,
            dim=array.dim,
            fps=settings.fps,
            model=self.models[settings.name].name,
        )


class _Array:
    """The rows of one stream of one video, computed some at a time and written to a file as they come."""

    def __init__(self, settings: StreamSettings, look: Look, path: Path, rows: int) -> None:
        self.settings, self.path, self.rows = settings, path, rows
        self._look = look
        self._waiting: list[Pixels] = []
        self._done = 0
        self._file: np.memmap[tuple[int, ...], np.dtype[np.float16]] | None = None

    @property
    def dim(self) -> int:
        """Numbers of a row."""
        assert self._file is not None, "a video has a row at least"
        return self._file.shape[1]

    def put(self, window: Pixels) -> None:
        """The next window."""
        self._waiting.append(window)
        if len(self._waiting) == self.settings.batch:
            self._compute()

    def end(self) -> None:
        """Compute what is waiting still, and let the file be written."""
        if self._waiting:
            self._compute()
        assert self._file is not None
        assert self._done == self.rows
        self._file.flush()

    @torch.inference_mode()
    def _compute(self) -> None:
        found = self._look(torch.from_numpy(np.stack(self._waiting))).to(torch.float16)
        if not torch.isfinite(found).all():
            raise Permanent("not_finite", f"stream {self.settings.name}: values that float16 cannot hold")
        if self._file is None:
            shape = (self.rows, found.shape[1])
            self._file = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.float16, shape=shape)
        self._file[self._done : self._done + len(found)] = found.numpy()
        self._done += len(found)
        self._waiting = []


@torch.inference_mode()
def _try(look: Look, model: FrozenModel) -> None:
    """Look at nothing. ConfigError where that does not go: with each video it would be a fault of the program's."""
    sight = model.sight
    nothing = torch.zeros(1, sight.frames, sight.crop.size, sight.crop.size, 3, dtype=torch.uint8)
    try:
        look(nothing)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # another time there may be room
    except Exception as error:  # noqa: BLE001  what models of others raise has no other class in common
        raise ConfigError(
            f"stream {model.settings.name}: {model.wanted} cannot look at {sight} ({first_line(error)}); "
            "give it another size, or leave size away"
        ) from None


_Told = dict[str, str]
"""By the names of streams what they are, for people and to compare."""


def _told(models: Mapping[str, FrozenModel]) -> _Told:
    return {name: origin(model.name, model.settings.fps) for name, model in models.items()}


def _compare(here: _Told, there: _Told, what: str, fix: str) -> None:
    differing = sorted(name for name in here | there if here.get(name) != there.get(name))
    if differing:
        told = "; ".join(
            f"{name}: {there.get(name, 'nothing')} there, {here.get(name, 'nothing')} here" for name in differing
        )
        raise ConfigError(f"features.streams: {what} ({told}); {fix}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads come out in another order: a worker's features would not be those of a terminal."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
