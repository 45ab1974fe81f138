"""An ablation on the demo world: size of the bag, objective, share of chatter; mean and spread over seeds.

    python -m benchmarks.ablation --folder DIR             everything, or what of it is left to do
    python -m benchmarks.ablation --folder DIR --table     the tables of what is there so far

For each seed and share of chatter a world of its own is rendered and ingested (benchmarks/ablation_world.py). On each
the recipe mil_nce_demo is trained with each objective and size of the bag, all else equal and with that seed. Every
model is asked about the same held-out world, which is none of these. What is finished is only read again; Ctrl-C, and
the same command goes on. docs/ablation.md says what was seen.

DIR/settings.json             what all runs have in common
DIR/held-out/                 the world that is asked about, and its protocols
DIR/seed-S-noise-N/           the world of a seed and a share of chatter
DIR/runs/NAME/                a run as any other, and result.json once it is evaluated
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import product
from multiprocessing import active_children, get_context
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from benchmarks.ablation_table import Cell, Result, show_tables
from benchmarks.ablation_world import EXPORT, held_out_world, trained_world
from demo.settings import WorldSettings
from ops import show
from sayso.errors import ConfigError, SaysoError
from sayso.root import Root
from train.evaluate.metrics import RetrievalMetrics
from train.evaluate.retrieval import RetrievalResult, evaluate_retrieval
from train.launch import launch

RECIPE = "mil_nce_demo"
# The largest bag of an objective: the ranking loss knows pairs only.
OBJECTIVES = {"mil_nce": None, "ranking": 1}
# So that three dozen runs take an hour or so, and go on side by side: smaller pictures, and smaller batches with more
# steps, which learn more in the same time here (docs/ablation.md).
SMALLER = (
    *("data.batch=32", "data.clips.size=48", "engine.ranks=1", "engine.threads=1"),
    *("output.tensorboard=false", "output.keep=1"),
)


class Common(BaseModel):
    """What all runs of a folder have in common; results of other settings cannot be compared with them."""

    model_config = ConfigDict(frozen=True)

    videos: int
    """of each world that is trained on"""
    steps: int
    held_out_seed: int
    held_out_videos: int
    protocol_videos: int
    """of the held-out world that a protocol asks about"""
    windows: int
    """that a clip is seen through"""
    overrides: tuple[str, ...]
    """laid over the recipe"""


class Asked(BaseModel):
    """What a worker is told: a run, where its world lies, and what it is asked about."""

    cell: Cell
    folder: Path
    root: str
    held_out: str
    protocols: list[Path]
    common: Common


def run(asked: Asked) -> Result:
    """Train a run and evaluate it; its result is kept beside it."""
    torch.set_num_threads(1)
    began = time.monotonic()
    folder = asked.folder / "runs" / asked.cell.name
    trained = launch(RECIPE, recipe(asked, folder))
    found = [
        evaluate_retrieval(
            Path(trained.model), asked.held_out, pairs=protocol, windows=asked.common.windows, device="cpu"
        )
        for protocol in asked.protocols
    ]
    result = together(found, time.monotonic() - began)
    partial = folder / "result.partial"
    partial.write_text(result.model_dump_json())
    partial.replace(folder / "result.json")
    return result


def recipe(asked: Asked, folder: Path) -> list[str]:
    """What is laid over the recipe."""
    cell, common = asked.cell, asked.common
    return [
        *(f"data.root={asked.root}", f"data.export={EXPORT}", f"output.folder={folder}"),
        *(f"objective.name={cell.objective}", f"data.clips.candidates={cell.bag}"),
        *(f"seed={cell.seed}", f"schedule.steps={common.steps}"),
        *SMALLER,
        *common.overrides,
    ]


def together(found: Sequence[RetrievalResult], seconds: float) -> Result:
    """The means of a model's figures over the protocols."""
    mean = {
        figure: statistics.mean(getattr(each, figure) for each in found) for figure in RetrievalMetrics.model_fields
    }
    guess = {
        figure: statistics.mean(getattr(each.chance, figure) for each in found)
        for figure in RetrievalMetrics.model_fields
    }
    texts = sum(each.candidates for each in found)
    return Result(**mean, chance=RetrievalMetrics(**guess), texts=texts, seconds=round(seconds, 1))


def cells(asked: argparse.Namespace) -> Iterator[Cell]:
    """The runs that are asked for, in the order in which they are taken."""
    for noise, objective, seed, bag in product(asked.noise, asked.objectives, asked.seeds, asked.bags):
        if bag <= (OBJECTIVES[objective] or bag):
            yield Cell(objective, bag, noise, seed)


def results(folder: Path) -> dict[Cell, Result]:
    """Every finished run of a folder, by what it varies."""
    found = {}
    for path in sorted(folder.glob("runs/*/result.json")):
        found[Cell.of(path.parent.name)] = Result.model_validate_json(path.read_text())
    return found


def run_missing(asked: argparse.Namespace, common: Common) -> None:
    """Every run that has no result yet, after the worlds that it needs."""
    finished = results(asked.folder)
    missing = [cell for cell in cells(asked) if cell not in finished]
    if not missing:
        return
    settings = WorldSettings(seed=common.held_out_seed, videos=common.held_out_videos)
    held_out, protocols = held_out_world(asked.folder / "held-out", settings, common.protocol_videos, asked.jobs)
    roots = {
        world: _root(asked, common, *world) for world in dict.fromkeys((cell.noise, cell.seed) for cell in missing)
    }
    told = [
        Asked(
            cell=cell,
            folder=asked.folder,
            root=roots[cell.noise, cell.seed].url,
            held_out=held_out.url,
            protocols=protocols,
            common=common,
        )
        for cell in missing
    ]
    side_by_side(told, asked.jobs)


def _root(asked: argparse.Namespace, common: Common, noise: float, seed: int) -> Root:
    settings = WorldSettings(seed=seed, videos=common.videos, noise=noise)
    return trained_world(asked.folder / f"seed-{seed}-noise-{noise:g}", settings, asked.jobs)


def side_by_side(told: Sequence[Asked], jobs: int) -> None:
    """Some runs, as many at once as there are jobs."""
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    waiting, running = deque(told), dict[Future[Result], Cell]()
    try:
        while waiting or running:
            # None is handed over before its turn: a worker would begin it when it is told to end.
            while waiting and len(running) < jobs:
                asked = waiting.popleft()
                running[pool.submit(run, asked)] = asked.cell
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                _tell(running.pop(done), done.result())
    except BaseException:
        pool.shutdown(wait=False)
        _end_workers()
        raise
    pool.shutdown()


def _tell(cell: Cell, result: Result) -> None:
    line = f"{cell.name}: R@5 {result.r5:.1f} (chance {result.chance.r5:.1f}), {result.seconds:.0f} s"
    show.err.print(line, markup=False, highlight=False)


def _end_workers() -> None:
    """By SIGTERM, for which training writes a checkpoint; asked again where a worker was between two things."""
    while workers := active_children():
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(10)


def settle(folder: Path, common: Common) -> None:
    """Note what the folder's runs have in common; ConfigError where it holds others."""
    path = folder / "settings.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(common.model_dump_json(indent=1))
    before = Common.model_validate_json(path.read_text())
    if before != common:
        raise ConfigError(f"{path} is of runs with other settings; choose another --folder")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything is put")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.5, 0.0, 0.8], help="in this order")
    parser.add_argument("--bags", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--objectives", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--videos", type=int, default=60, help="of each world that is trained on")
    parser.add_argument("--held-out-seed", type=int, default=1000)
    parser.add_argument("--held-out-videos", type=int, default=72)
    parser.add_argument("--protocol-videos", type=int, default=12, help="held-out videos that a protocol asks about")
    parser.add_argument("--windows", type=int, default=4, help="that a held-out clip is seen through")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, each on one core")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"laid over the recipe {RECIPE}")
    return parser.parse_args()


def main() -> int:
    """Do what is left, and show the tables."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = arguments()
    asked.folder = asked.folder.resolve()
    code = 0
    if not asked.table:
        common = Common(**{name: getattr(asked, name) for name in Common.model_fields})
        try:
            settle(asked.folder, common)
            run_missing(asked, common)
        except SaysoError as error:
            show.err.print(f"ablation: {error}", markup=False, highlight=False)
            code = 1
        except KeyboardInterrupt:
            show.err.print("ablation: stopped; the same command goes on", markup=False, highlight=False)
            code = 130
    if found := results(asked.folder):
        show_tables(found, asked.folder / "table.json")
    else:
        show.err.print(f"ablation: no run of {asked.folder} is finished yet", markup=False, highlight=False)
    return code


if __name__ == "__main__":
    sys.exit(main())
