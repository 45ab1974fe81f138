"""What ranks do when a step gives no number: two gloo ranks, each as if on a machine of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sayso.errors import NotFinite
from tests.ranks import REPOSITORY
from train.guard import Guard, Taken


class SlowMirror:
    """A second place that takes its time, as object stores do."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def put_files(self) -> None:
        time.sleep(2.0)
        self._mark.touch()


def be_rank(folder: Path, rank: int) -> None:
    from train.engine import leave, tell

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    guard = Guard(folder, threading.Event(), torch.device("cpu"))
    assert guard.agree(1, Taken(keys=[["a"]], losses=[torch.tensor(1.0 + rank)])) == (1.5, False)
    try:
        guard.agree(2, Taken(keys=[[f"key-{rank}"]], losses=[torch.tensor(math.nan if rank else 1.0)]))
    except NotFinite as error:
        if rank == 0:
            tell(error, SlowMirror(folder / "uploaded"))  # type: ignore[arg-type]  # the one call that is made
        leave()
        assert (folder / "uploaded").exists(), "a rank that leaves makes the driver end the others"
        (folder / f"left-{rank}").touch()


def test_a_rank_whose_loss_is_no_number_waits_until_the_first_has_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", __name__, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(rank)], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    said = [process.communicate(timeout=100)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert all((tmp_path / f"left-{rank}").exists() for rank in range(2))
    assert "rank 0: step 2: the loss is nan" in said[0]
    assert "the loss is nan" not in said[1]
    report = json.loads((tmp_path / "nan-step-2.json").read_text())
    assert report["last_losses"] == [1.5]
    assert [part["keys"] for part in report["batch"]] == [["key-0"], ["key-1"]]


def test_a_gradient_of_fp16_that_no_scale_of_the_loss_makes_finite_ends_the_run(tmp_path: Path) -> None:
    guard = Guard(tmp_path, threading.Event(), torch.device("cpu"))
    taken = Taken(keys=[["a"]], losses=[torch.tensor(2.0)], scale=1.0)
    assert guard.agree(1, taken) == (2.0, False)
    taken.scale = 0.5
    with pytest.raises(NotFinite, match=r"step 2: the gradient is not finite in fp16 even unscaled, the loss is 2"):
        guard.agree(2, taken)
    assert (tmp_path / "nan-step-2.json").exists()


if __name__ == "__main__":
    be_rank(Path(sys.argv[1]), int(sys.argv[2]))
