"""What became of training runs: a list of them, and two of them side by side.

A run is a folder with recipe.yaml and metrics.jsonl, as `sayso train` writes it (train/run.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from statistics import mean, median
from typing import Any

import yaml
from pydantic import BaseModel

from ops import show
from sayso.caches import copy_of, is_url
from sayso.errors import InputError
from sayso.storage import Storage
from train.metrics import read_metrics
from train.record import STARTS
from train.run import METRICS, RECIPE, flat

LAST = 10
"""A run's loss is the mean over so many of its last lines."""
_ELSEWHERE = ("output.folder", "output.mirror")
"""What differs between any two runs."""
_READ = frozenset({RECIPE, METRICS, STARTS})
"""What is read of a run."""


class Run(BaseModel):
    """A training run as its folder tells it. Figures are None where the run has not written them."""

    folder: str
    objective: str
    started: str | None
    starts: int
    step: int
    total: int | None
    loss: float | None
    val_loss: float | None
    samples_per_second: float | None
    data_wait: float | None
    mfu: float | None
    parameters: int | None
    code: str | None


class Difference(BaseModel):
    """A key whose value is not the same in two runs."""

    key: str
    first: Any
    second: Any


class Comparison(BaseModel):
    """Two runs: what was set otherwise, what they ran on, and what came of it."""

    first: Run
    second: Run
    recipe: list[Difference]
    environment: list[Difference]


def here(place: str) -> Path:
    """The folder of a place; where it is a URL, a fresh copy of what is read of the runs there."""
    if not is_url(place):
        return Path(place)
    storage, folder = Storage(place), copy_of(place, "listed")
    shutil.rmtree(folder, ignore_errors=True)
    for key in storage.list(""):
        if PurePosixPath(key).name in _READ:
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(storage.read(key))
    return folder


def named(folder: Path, places: Mapping[Path, str]) -> str:
    """What a run's folder is called, given which folders stand for which places."""
    for copy, place in places.items():
        if is_url(place) and folder.is_relative_to(copy):
            return "/".join([place.rstrip("/"), *folder.relative_to(copy).parts])
    return str(folder)


def find_runs(places: Mapping[Path, str]) -> list[Path]:
    """The runs among folders and within them, sorted. InputError names the place of a folder that has none."""
    found: set[Path] = set()
    for folder, place in places.items():
        runs = {path.parent for path in folder.glob(f"**/{RECIPE}") if is_run(path.parent)}
        if not runs:
            raise InputError(f"no run in {place}: a run has {RECIPE} and {METRICS}")
        found |= runs
    return sorted(found)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run itself, not one that holds runs."""
    return (folder / RECIPE).exists() and (folder / METRICS).exists()


def read_run(folder: Path, name: str | None = None) -> Run:
    """A run's figures under a name, by default its folder: medians of speeds, means of the last losses."""
    lines, starts = read_metrics(folder / METRICS), _starts(folder)
    last = starts[-1] if starts else {}
    return Run(
        folder=name or str(folder),
        objective=str(_recipe(folder).get("objective", {}).get("name")),
        started=starts[0]["started"] if starts else None,
        starts=len(starts),
        step=int(lines[-1]["step"]) if lines else 0,
        total=last.get("total_steps"),
        loss=_mean_of_last(lines, "loss", LAST),
        val_loss=_mean_of_last(lines, "val_loss", 1),
        samples_per_second=_median(lines, "samples_per_second"),
        data_wait=_median(lines, "data_wait"),
        mfu=_median(lines, "mfu"),
        parameters=last.get("parameters"),
        code=last["code"]["sha256"][:12] if last else None,
    )


def compare(first: Path, second: Path, *, names: tuple[str | None, str | None] = (None, None)) -> Comparison:
    """Two runs side by side, under names, by default their folders."""
    return Comparison(
        first=read_run(first, names[0]),
        second=read_run(second, names[1]),
        recipe=_differences(_recipe(first), _recipe(second)),
        environment=_differences(_environment(first), _environment(second)),
    )


def curves(folder: Path, key: str = "loss") -> list[tuple[float, float]]:
    """(step, value) of every line that has the key."""
    return [(line["step"], line[key]) for line in read_metrics(folder / METRICS) if key in line]


def _recipe(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / RECIPE).read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{folder / RECIPE} is not YAML: {' '.join(str(error).split())}") from None
    return found if isinstance(found, dict) else {}


def _starts(folder: Path) -> list[dict[str, Any]]:
    path = folder / STARTS
    # A line that a kill cut short has no end; it is not a line.
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _environment(folder: Path) -> dict[str, Any]:
    starts = _starts(folder)
    return {key: starts[-1][key] for key in ("code", "environment", "ranks", "peak")} if starts else {}


def _differences(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    one, other = flat(first), flat(second)
    return [
        Difference(key=key, first=one.get(key), second=other.get(key))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key) and key not in _ELSEWHERE
    ]


def _mean_of_last(lines: Sequence[dict[str, float]], key: str, count: int) -> float | None:
    values = [line[key] for line in lines if key in line][-count:]
    return mean(values) if values else None


def _median(lines: Sequence[dict[str, float]], key: str) -> float | None:
    values = [line[key] for line in lines if key in line]
    return median(values) if values else None


_FIGURES = {
    "step": "{:d}",
    "loss": "{:.4f}",
    "val_loss": "{:.4f}",
    "samples_per_second": "{:.1f}",
    "data_wait": "{:.1%}",
    "mfu": "{:.1%}",
    "parameters": "{:,d}",
}


def show_runs(runs: Sequence[Run]) -> None:
    """A table of runs on stdout."""
    columns = ("run", "objective", "started", "steps", "loss", "val loss", "samples/s", "data wait", "MFU", "code")
    show.table("Runs", columns, [_row(run) for run in runs], right=frozenset(columns[3:9]))


def _row(run: Run) -> tuple[str, ...]:
    steps = f"{run.step}/{run.total}" if run.total else str(run.step)
    figures = (_figure(run, key) for key in ("loss", "val_loss", "samples_per_second", "data_wait", "mfu"))
    return (run.folder, run.objective, run.started or "", steps, *figures, run.code or "")


def _figure(run: Run, key: str) -> str:
    value = getattr(run, key)
    return "" if value is None else _FIGURES[key].format(value)


def show_comparison(found: Comparison) -> None:
    """Tables of what differs, and the results of both, on stdout."""
    names = (found.first.folder, found.second.folder)
    for title, rows in (("Recipe", found.recipe), ("Code and environment", found.environment)):
        if rows:
            show.table(title, ("differs", *names), [(row.key, str(row.first), str(row.second)) for row in rows])
        else:
            show.out.print(f"{title}: the same")
    results = [(key, _figure(found.first, key), _figure(found.second, key)) for key in _FIGURES]
    show.table("Results", ("figure", *names), results, right=frozenset(names))
