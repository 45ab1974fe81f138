"""A run kept in a second place, any fsspec URL: what a machine that is taken away leaves behind.

    FOLDER  --after each checkpoint-->  URL            all files, the pointer last
    FOLDER  <--when a run is started--  URL            where URL is further than FOLDER is

The pointer checkpoints/latest.json names a checkpoint only once that is there whole. If the process dies in the middle
of an upload, the pointer still names the one before, and the next upload removes what was left lying. Uploads are part
of a checkpoint's time: training goes on when they are done. A run that finds the pointer moved by somebody else ends.

A run may also be at a URL alone (output.folder is one). It then works in a folder of this machine that is a mere copy,
and what stands at the URL is what counts.
"""

import json
import shutil
import uuid
from pathlib import Path

from sayso.caches import copy_of, is_copy_of, is_url
from sayso.config import validate
from sayso.errors import InputError, ModelNotFound, RootBusy
from sayso.storage import PARTIAL, Storage
from train.hold import LOCK
from train.record import STARTS
from train.run import (
    CHECKPOINTS,
    METRICS,
    POINTER,
    RECIPE,
    TENSORBOARD,
    Latest,
    latest,
    latest_model,
    point_to,
    step_folder,
)
from train.weights import FILES, WORDS

_POINTER = f"{CHECKPOINTS}/{POINTER}"
_FILES = (RECIPE, WORDS, METRICS, STARTS)


def fetch_model(place: str | Path) -> Path:
    """A folder with the model of a run or of a model's folder, which may be at a URL: its newest checkpoint's.

    Raises ModelNotFound where there is none.
    """
    if not is_url(place):
        return latest_model(Path(place))
    storage = Storage(str(place))
    folder = ""
    for pointer in (_POINTER, POINTER):
        step = _read_pointer(storage, pointer).step
        if step:
            folder = f"{pointer.removesuffix(POINTER)}{step_folder(Path(), step).name}/"
            break
    target = copy_of(storage.url, "models")
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        try:
            _copy(storage, f"{folder}{name}", target / name)
        except FileNotFoundError:
            raise ModelNotFound(f"no model in {storage.url}: {folder}{name} is missing") from None
    return target


def _read_pointer(storage: Storage, key: str) -> Latest:
    source = f"{storage.url}/{key}"
    try:
        return validate(Latest, json.loads(storage.read(key)), source=source)
    except FileNotFoundError:
        return Latest()
    except ValueError as error:
        raise InputError(f"{source} cannot be read ({error}); remove it to start from step 0") from error


def _copy(storage: Storage, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}")  # somebody may be reading an older copy
    with storage.local(key) as found:
        shutil.copyfile(found, partial)
    partial.replace(path)


class Mirror:
    """The second place of the run in `folder`. Every call may raise StorageError and RootError (sayso/storage.py)."""

    def __init__(self, url: str, folder: Path) -> None:
        self._storage, self._folder = Storage(url), folder
        self._is_copy = is_copy_of(url, "runs", folder)
        self._left: Latest | None = None

    def latest(self) -> Latest:
        """The newest checkpoint that is there whole; step 0 where there is none."""
        return _read_pointer(self._storage, _POINTER)

    def fetch(self) -> None:
        """Bring the newest checkpoint and the run's other files here, where the run is further there."""
        there, local = self.latest(), self._folder / CHECKPOINTS
        if self._is_copy and (not there.step or there.step < latest(local).step):
            self._empty()
        here = latest(local).step
        target = step_folder(local, there.step)
        # Of several machines with folders of their own, one may have removed what its pointer still names.
        if there.step < here or (there.step == here and (not here or target.is_dir())):
            return
        shutil.rmtree(target, ignore_errors=True)
        folders = (TENSORBOARD, f"{CHECKPOINTS}/{target.name}")
        for key in [*_FILES, *(key for folder in folders for key in self._storage.list(folder))]:
            _copy(self._storage, key, self._folder / key)
        point_to(local, there)

    def _empty(self) -> None:
        """Throw the folder away, but for the lock that we hold it by."""
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def catch_up(self, *, keep: int) -> None:
        """Upload the newest checkpoint where the run is further here: its upload failed, or the mirror is new."""
        here = latest(self._folder / CHECKPOINTS)
        # Of several machines with folders of their own, one may have removed what its pointer still names.
        there = step_folder(self._folder / CHECKPOINTS, here.step).is_dir()
        if there and here.step > self.latest().step:
            self.put_checkpoint(here.step)
            self.put_pointer(here, keep=keep)

    def put_checkpoint(self, step: int) -> None:
        """Upload what this machine has of a checkpoint. To be called on each machine, before `put_pointer`."""
        folder = step_folder(self._folder / CHECKPOINTS, step)
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            self._storage.put_file(path, f"{CHECKPOINTS}/{folder.name}/{path.name}")

    def expect_nobody(self) -> None:
        """From now on only this object is to move the pointer."""
        self._left = self.latest()

    def put_files(self) -> None:
        """Upload everything of the run but its checkpoints."""
        for path in sorted(self._folder.rglob("*")):
            key = path.relative_to(self._folder).as_posix()
            if path.is_file() and key != LOCK and not key.startswith(f"{CHECKPOINTS}/"):
                self._storage.put_file(path, key)

    def put_pointer(self, reached: Latest, *, keep: int) -> None:
        """Make a checkpoint that was uploaded the newest, and remove all but the newest `keep` up to it.

        Raises RootBusy where another run has moved the pointer since this one moved it, or since `expect_nobody`.
        """
        before = self.latest()
        if self._left not in (None, before):
            raise RootBusy(
                f"{self._storage.url}: another run writes there, it has reached step {before.step}; stop one of the "
                "two, or give this one an output.folder and output.mirror of its own"
            )
        self.put_files()
        self._storage.put_bytes(reached.model_dump_json().encode(), _POINTER)
        self._left = reached
        of_step: dict[str, list[str]] = {}
        for key in self._storage.list(CHECKPOINTS):
            name = key.split("/")[1]
            if name != POINTER:
                of_step.setdefault(name, []).append(key)
        last, newest = (step_folder(Path(), each.step).name for each in (before, reached))
        whole = sorted(name for name in of_step if name <= last or name == newest)  # between them an upload was cut off
        kept = [name for name in whole if name <= newest][-keep:]
        for name in of_step.keys() - set(kept):
            for key in of_step[name]:
                self._storage.remove(key)
