"""The command `sayso runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops import show


def runs(
    folders: Annotated[
        list[str], typer.Argument(metavar="FOLDER...", help="Runs, or folders that hold runs; also at any fsspec URL.")
    ],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png|.html", help="Draw a figure of all of them over steps.")
    ] = None,
    figure: Annotated[str, typer.Option("--figure", help="What --plot draws: a key of metrics.jsonl.")] = "loss",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Training runs: a list of those in folders, or, of exactly two runs, what differs in recipe and results.

    Example: sayso runs ./runs/bags-of-1 ./runs/bags-of-5 --plot loss.png
    """
    from ops.plot import draw
    from ops.runs import compare, curves, find_runs, here, is_run, named, read_run, show_comparison, show_runs

    places = {here(folder): folder for folder in folders}
    found = {folder: named(folder, places) for folder in find_runs(places)}
    if len(places) == 2 and all(map(is_run, places)):
        first, second = places
        comparison = compare(first, second, names=(found[first], found[second]))
        if json:
            show.as_json(comparison.model_dump())
        else:
            show_comparison(comparison)
    else:
        listed = [read_run(folder, name) for folder, name in found.items()]
        if json:
            show.as_json([run.model_dump() for run in listed])
        else:
            show_runs(listed)
    if plot is not None:
        draw({name: curves(folder, figure) for folder, name in found.items()}, plot, title=figure)


def add_to(app: typer.Typer) -> None:
    """Add the command to the command `sayso`."""
    app.command()(runs)
