"""What a run says while it goes: a line of metrics.jsonl a step, the same for TensorBoard, and its progress on stderr.

Rank 0 only.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LINE_EVERY = 10.0  # seconds between lines of progress where stderr is no terminal


class MetricsLog:
    """Appends to metrics.jsonl; lines of steps that a killed run took after its last checkpoint are taken back."""

    def __init__(self, path: Path, *, start: int, tensorboard: Path | None = None) -> None:
        """Figures go to `path`, and as events into a folder where one is given."""
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= start]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        partial.replace(path)
        self._file = path.open("a", buffering=1)
        self._events: SummaryWriter | None = None
        if tensorboard is not None:
            # Takes seconds to import, which whoever reads metrics need not wait for.
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(tensorboard), purge_step=start + 1)

    def write(self, **figures: float) -> None:
        """One line; `step` must be among the figures."""
        self._file.write(json.dumps(figures) + "\n")
        if self._events:
            for name, value in figures.items():
                if name != "step":
                    self._events.add_scalar(name, value, int(figures["step"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events:
            self._events.close()


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    # A line that a kill cut short has no end; it is not a line.
    return [line.rstrip("\n") for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """All lines of a metrics.jsonl."""
    return [json.loads(line) for line in _lines(path)]


class Bar:
    """A bar on a terminal; a line every ten seconds elsewhere."""

    def __init__(self, *, start: int, total: int) -> None:
        self.total, self._last_line = total, time.monotonic()
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._progress.add_task("", total=total, completed=start)

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def show(self, step: int, text: str) -> None:
        """Move to `step` of the total."""
        if self._progress:
            self._progress.update(self._task, completed=step, description=text)
        elif step == self.total or time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            print(f"train {step}/{self.total} {text}", file=sys.stderr)  # noqa: T201  # progress is for people
