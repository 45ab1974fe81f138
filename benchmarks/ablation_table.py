"""The tables of benchmarks/ablation.py, from the results of its runs: means and spread over seeds, beside chance.

The spread is the standard deviation over seeds (n - 1). What is said of a bag against a single candidate rests on the
differences seed by seed, since both had the same world and the same seed; their interval is Student's.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats  # type: ignore[import-untyped]  # scikit-learn brings it

from ops import show
from train.evaluate.metrics import RetrievalMetrics

FIGURES = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "median_rank": "median rank"}
HEADLINE_NOISE = 0.5


class Cell(NamedTuple):
    """A run: what is varied. `noise` is the share of the sentences that tell of nothing seen."""

    objective: str
    bag: int
    noise: float
    seed: int

    @property
    def name(self) -> str:
        """The run's folder."""
        return f"{self.objective}-bag-{self.bag}-noise-{self.noise:g}-seed-{self.seed}"

    @classmethod
    def of(cls, name: str) -> Cell:
        """What a run's folder of that name varies."""
        matched = re.fullmatch(r"(\w+)-bag-(\d+)-noise-([\d.]+)-seed-(\d+)", name)
        assert matched, name
        return cls(matched[1], int(matched[2]), float(matched[3]), int(matched[4]))

    @property
    def row(self) -> str:
        """How people call what is trained."""
        return f"{self.objective}, {'one candidate' if self.bag == 1 else f'bag of {self.bag}'}"


class Result(RetrievalMetrics):
    """What a run came to, beside guessing: means over the protocols of the held-out world."""

    chance: RetrievalMetrics
    texts: int
    seconds: float


Results = Mapping[Cell, Result]


class Spread(NamedTuple):
    """Mean and standard deviation over so many seeds."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.deviation:.1f} ({self.seeds})" if self.seeds > 1 else f"{self.mean:.1f}"


def spread(figures: Sequence[float]) -> Spread:
    """Of one figure the deviation is 0."""
    return Spread(statistics.mean(figures), statistics.stdev(figures) if len(figures) > 1 else 0.0, len(figures))


def differences(results: Results, bag: int, noise: float, figure: str = "r5") -> list[float]:
    """MIL-NCE with a bag less MIL-NCE with one candidate, by seed, for the seeds that have both."""
    pairs = [
        (getattr(result, figure), getattr(results[single], figure))
        for cell, result in sorted(results.items())
        if (cell.objective, cell.bag, cell.noise) == ("mil_nce", bag, noise)
        and (single := cell._replace(bag=1)) in results
    ]
    return [with_bag - alone for with_bag, alone in pairs]


def interval(figures: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of their mean; of fewer than two there is none."""
    mean, deviation, number = spread(figures)
    half = deviation / number**0.5 * float(stats.t.ppf((1 + confidence) / 2, number - 1))
    return mean - half, mean + half


def verdict(results: Results, noise: float = HEADLINE_NOISE) -> str:
    """One line: whether MIL-NCE with bags beats the single candidate at that noise, with the figures."""
    bags = sorted({cell.bag for cell in results if cell.objective == "mil_nce" and cell.bag > 1})
    compared = [(bag, by_seed) for bag in bags if (by_seed := differences(results, bag, noise))]
    if not compared:
        return f"MIL-NCE with bags against a single candidate at {noise:.0%} noise: no seed has both yet"
    lines = [_compared(bag, by_seed) for bag, by_seed in compared]
    return f"R@5 of MIL-NCE at {noise:.0%} noise, a bag less a single candidate: " + "; ".join(lines)


def _compared(bag: int, by_seed: Sequence[float]) -> str:
    won = sum(difference > 0 for difference in by_seed)
    each = ", ".join(f"{difference:+.1f}" for difference in by_seed)
    line = f"bag of {bag} beats it in {won} of {len(by_seed)} seeds ({each}; mean {statistics.mean(by_seed):+.1f}"
    if len(by_seed) > 1:
        low, high = interval(by_seed)
        line += f", 95 % interval {low:+.1f} to {high:+.1f}"
    return line + ")"


def tables(results: Results) -> dict[str, Any]:
    """Everything as plain values: by figure, row and noise its mean, deviation and number of seeds."""
    return {figure: _table(results, figure) for figure in FIGURES}


def _table(results: Results, figure: str) -> dict[str, dict[str, Any]]:
    grouped: dict[str, dict[str, list[float]]] = {}
    guessed: dict[str, list[float]] = {}
    for cell, result in sorted(results.items()):
        grouped.setdefault(cell.row, {}).setdefault(f"{cell.noise:g}", []).append(getattr(result, figure))
        # All are asked about the same world: guessing gives the same for all.
        guessed[f"{cell.noise:g}"] = [getattr(result.chance, figure)]
    return {
        row: {noise: spread(found)._asdict() for noise, found in by_noise.items()}
        for row, by_noise in {**grouped, "chance": guessed}.items()
    }


def show_tables(results: Results, path: Path) -> None:
    """Print the tables and the verdict, and write them down as JSON."""
    told = {**tables(results), "verdict": verdict(results)}
    path.write_text(json.dumps(told, indent=1))
    seeds = sorted({cell.seed for cell in results})
    for figure, name in FIGURES.items():
        by_row = told[figure]
        noises = sorted({noise for cells in by_row.values() for noise in cells}, key=float)
        columns = ["", *(f"noise {float(noise):.0%}" for noise in noises)]
        lines = [
            [row, *(str(Spread(**cells[noise])) if noise in cells else "-" for noise in noises)]
            for row, cells in by_row.items()
        ]
        unit = "" if figure == "median_rank" else ", %"
        title = f"{name}{unit}: mean ± standard deviation (how many seeds), of the seeds {', '.join(map(str, seeds))}"
        show.table(title, columns, lines)
    show.out.print(told["verdict"], markup=False, highlight=False)
