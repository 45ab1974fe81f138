"""Data on stdout (tables for people, JSON for programs), progress on stderr."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from sayso.engine import Progress as StageProgress

# A pipe or a file has no width: tables take what they need.
_WIDE = 200
# Time left is forecast from the speed of the last minute, noted once a second.
_SPEED_SECONDS = 60.0
_SPEED_STEP = 1.0
# What is shown is told as it is: [name] in a path or a title is no markup, :name: no picture.
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _WIDE, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)


def as_json(data: Any) -> None:
    """Print a value as JSON on stdout."""
    json.dump(data, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()
) -> None:
    """Print a table on stdout; the columns named in `right` are aligned right."""
    sheet = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        sheet.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=number == 0)
    for row in rows:
        sheet.add_row(*row)
    out.print(sheet)


def counts(groups: Mapping[str, int]) -> str:
    """Reasons with their counts, the most frequent first: `no_speech 3, duplicate 1`."""
    ordered = sorted(groups.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {number}" for reason, number in ordered)


def duration(seconds: float) -> str:
    """Seconds as people read them: 7.3 s, 2:05 min, 3:10:00 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def seconds_left(pending: int, rows_per_second: float) -> float | None:
    """How long the pending rows take at this speed; None where nothing moves."""
    if not pending:
        return 0.0
    return pending / rows_per_second if rows_per_second > 0 else None


class Bars:
    """A progress bar a stage, on stderr, all at once. Where stderr is no terminal, one line when a stage ends."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=err,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._speeds: dict[str, _Speed] = {}
        self._said: dict[str, str] = {}

    def watch(self, progress: StageProgress) -> None:
        """Show where a stage stands."""
        tally = progress.tally
        settled = tally.done + tally.skipped.total() + tally.failed.total()
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._progress.add_task(progress.stage, total=tally.total, facts="")
            self._speeds[progress.stage] = _Speed()
        # Rich's own forecast begins anew whenever the total grows, which it does as long as an earlier stage works.
        left = seconds_left(tally.pending, self._speeds[progress.stage].after(progress.elapsed, progress.settled))
        facts = [stage_facts(progress), f"{duration(left)} left" if left else ""]
        self._progress.update(
            self._tasks[progress.stage], completed=settled, total=tally.total, facts=", ".join(filter(None, facts))
        )

        if progress.finished:
            self._ended(progress)

    def _ended(self, progress: StageProgress) -> None:
        self._progress.stop_task(self._tasks[progress.stage])
        done = f"{progress.tally.done} of {progress.tally.total} done"
        line = f"{progress.stage}: {', '.join(filter(None, (done, stage_facts(progress))))}"
        if not err.is_terminal and self._said.get(progress.stage) != line:
            self._said[progress.stage] = line
            err.print(line)

    def say(self, text: str) -> None:
        """A line among the bars."""
        self._progress.console.print(text)


@contextmanager
def bars() -> Iterator[Bars]:
    """Progress bars on stderr, for as long as the context lasts."""
    shown = Bars()
    with shown._progress:
        yield shown


@contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for a loop that reports (done, total)."""
    columns = (TextColumn("{task.description:<11}"), BarColumn(bar_width=30), MofNCompleteColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Speed:
    """Rows a second over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def after(self, elapsed: float, rows: int) -> float:
        """The speed now that `rows` are settled after `elapsed` seconds."""
        if elapsed >= self._seen[-1][0] + _SPEED_STEP:
            self._seen.append((elapsed, rows))
        while len(self._seen) > 2 and elapsed - self._seen[1][0] >= _SPEED_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return (rows - before) / (elapsed - since) if elapsed > since else 0.0


def stage_facts(progress: StageProgress) -> str:
    """Queue, drops, failures and speed of a stage in a few words."""
    tally = progress.tally
    facts = []
    if progress.in_flight:
        facts.append(f"in flight {progress.in_flight}")
    if progress.queued:
        facts.append(f"queue {progress.queued}")
    if progress.gated:
        facts.append(f"waiting for earlier stages {progress.gated}")
    if tally.skipped:
        facts.append(f"dropped {tally.skipped.total()}")
    if tally.failed:
        facts.append(f"failed {tally.failed.total()}")
    if progress.video_seconds and progress.elapsed:
        facts.append(f"{progress.video_seconds / progress.elapsed:.0f}x real time")
    return ", ".join(facts)
