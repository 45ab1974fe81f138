"""The command `sayso runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops import show


def runs(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Runs, or folders that hold runs.")],
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
    from ops.runs import compare, curves, find_runs, is_run, read_run, show_comparison, show_runs

    found = find_runs(folders)
    if len(folders) == 2 and all(map(is_run, folders)):
        comparison = compare(*folders)
        if json:
            show.as_json(comparison.model_dump())
        else:
            show_comparison(comparison)
    else:
        listed = [read_run(folder) for folder in found]
        if json:
            show.as_json([run.model_dump() for run in listed])
        else:
            show_runs(listed)
    if plot is not None:
        draw({str(folder): curves(folder, figure) for folder in found}, plot, title=figure)


def add_to(app: typer.Typer) -> None:
    """Add the command to the command `sayso`."""
    app.command()(runs)
