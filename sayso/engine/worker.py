"""The Ray actor around a stage: one process that opens the stage once and then takes row after row."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil

from sayso.engine.outcome import Fatal, Outcome, attempt
from sayso.errors import UserError, WorkFailed
from sayso.rows import Row
from sayso.stage import Stage

_SCRATCH = "sayso-scratch"


class Worker:
    """Wrapped by the pool with `ray.remote`; plain otherwise."""

    def __init__(self, stage: Stage[Any, Any]) -> None:
        self._stage = stage
        tempfile.tempdir = str(own_scratch())

    def open(self) -> Fatal | None:
        """Load the stage's models; Fatal where they cannot be had."""
        try:
            self._stage.open()
        except (UserError, WorkFailed) as error:
            return Fatal(error)
        return None

    def work(self, row: Row) -> Outcome:
        """Try one row."""
        return attempt(self._stage, row)


def own_scratch() -> Path:
    """A temporary folder of this process, after sweeping those of processes that were killed."""
    base = Path(tempfile.gettempdir()) / _SCRATCH
    base.mkdir(parents=True, exist_ok=True)
    for folder in base.iterdir():
        if folder.name.isdigit() and not psutil.pid_exists(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    own = base / str(os.getpid())
    own.mkdir(exist_ok=True)
    return own
