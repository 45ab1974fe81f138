"""Figures of a batch that ranks share out, each of which is a process: averaged over them, as DeepSpeed and DDP do.

averaged("tests.train.test_mil_nce", tmp_path, ranks=2, rows=12)    # in a test
if __name__ == "__main__":                                          # in the module that it names
    be_a_rank(figures)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]


def averaged(module: str, folder: Path, ranks: int, rows: int) -> dict[str, list[Tensor]]:
    """The figures that a module's ranks make of their shares of the rows."""
    command = [sys.executable, "-m", module, str(folder), str(ranks), str(rows)]
    running = [subprocess.Popen([*command, str(rank)], cwd=REPOSITORY) for rank in range(ranks)]
    assert [process.wait(timeout=120) for process in running] == [0] * ranks
    found: dict[str, list[Tensor]] = torch.load(folder / "figures.pt", weights_only=True)
    return found


def be_a_rank(figures: Callable[[slice], dict[str, list[Tensor]]]) -> None:
    """Make the figures of one rank's rows. For processes that `averaged` has started."""
    folder, [ranks, rows, rank] = sys.argv[1], map(int, sys.argv[2:])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    share = rows // ranks
    found = figures(slice(rank * share, (rank + 1) * share))
    for figure in (each for several in found.values() for each in several):
        dist.all_reduce(figure)
        figure /= ranks
    if rank == 0:
        torch.save(found, f"{folder}/figures.pt")
    dist.destroy_process_group()
