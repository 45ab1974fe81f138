"""Retrieval figures for people, each beside what guessing would give."""

from __future__ import annotations

from ops import show
from ops.evaluate import missing_lines
from train.evaluate.retrieval import RetrievalResult


def show_retrieval(found: RetrievalResult) -> None:
    """Print retrieval metrics beside chance."""
    guess = found.chance
    rows = [
        ["R@1", f"{found.r1:.1f} %", f"{guess.r1:.1f} %"],
        ["R@5", f"{found.r5:.1f} %", f"{guess.r5:.1f} %"],
        ["R@10", f"{found.r10:.1f} %", f"{guess.r10:.1f} %"],
        ["median rank", f"{found.median_rank:g}", f"{guess.median_rank:g}"],
    ]
    rests_on = f"{found.candidates} clips of {found.videos.found} videos"
    if found.candidates < found.of:
        rests_on = f"{found.candidates} of {found.of} clips, {found.videos.found} of {found.videos.of} videos"
    show.table(
        f"text-to-video retrieval: {rests_on}",
        ["metric", "model", "chance"],
        rows,
        right=frozenset({"model", "chance"}),
    )
    for line in missing_lines(found.missing):
        show.out.print(line, markup=False, highlight=False)
