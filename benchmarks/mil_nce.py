"""Memory and time of the MIL-NCE loss, forward and backward, against the form that makes all scores at once.

    python -m benchmarks.mil_nce [--clips 2048] [--large 8192] [--repeat 3]

Each side runs in a process of its own. Memory is the growth of its peak over what it held before the loss, embeddings
and their gradients included on both sides. The view of one of W ranks has clips / W local rows against the whole batch;
the other ranks' embeddings are there already, so that no gather is in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from train.objectives.mil_nce import mil_nce_rows

CANDIDATES, SIZE = 5, 512
MIB = 1 << 20


def naive(video: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    """All scores at once, as the formula is written."""
    rows = torch.einsum("id,jkd->ijk", video, text).masked_fill(~mask, -torch.inf)
    columns = torch.einsum("jd,ikd->ijk", video, text).masked_fill(~mask[:, None], -torch.inf)
    index = torch.arange(len(video))
    columns = columns.index_put((index, index), columns.new_tensor(-torch.inf))
    everything = torch.cat([rows.flatten(1), columns.flatten(1)], dim=1)
    return (everything.logsumexp(1) - rows[index, index].logsumexp(1)).mean()


def measure(side: str, clips: int, ranks: int, repeat: int) -> dict[str, float]:
    """Best seconds of a step and growth of the peak in bytes, in this process."""
    torch.manual_seed(0)
    # Long enough to be what embeddings are early in training: scores of a few units.
    video, text = torch.randn(clips, SIZE) * 0.2, torch.randn(clips, CANDIDATES, SIZE) * 0.2
    mask = torch.rand(clips, CANDIDATES) < 0.9
    mask[:, 0] = True
    before = _peak()
    best = float("inf")
    for _ in range(repeat):
        v, t = video.requires_grad_(), text.requires_grad_()
        v.grad = t.grad = None
        begun = time.perf_counter()
        if side == "naive":
            loss = naive(v, t, mask)
        else:
            local = slice(0, clips // ranks)
            loss = mil_nce_rows(v[local], t[local], mask[local], v, t, mask)
        torch.autograd.backward(loss)
        best = min(best, time.perf_counter() - begun)
    return {"seconds": best, "bytes": _peak() - before, "loss": loss.item()}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_a_process(side: str, clips: int, ranks: int, repeat: int) -> dict[str, Any]:
    """What `measure` finds in a new process."""
    command = [sys.executable, "-m", "benchmarks.mil_nce", "--side", side]
    command += ["--clips", str(clips), "--ranks", str(ranks), "--repeat", str(repeat)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{side:>9}, batch {clips}, {clips // ranks} local rows: {found['seconds']:6.2f} s, "
        f"{found['bytes'] / MIB:7.0f} MiB, loss {found['loss']:.4f}"
    )
    return found


def main() -> None:
    """Print both sides and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--large", type=int, default=8192)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=["naive", "blockwise"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.clips, args.ranks, args.repeat)))
        return
    theirs = in_a_process("naive", args.clips, 1, args.repeat)
    ours = in_a_process("blockwise", args.clips, 1, args.repeat)
    quarter = in_a_process("blockwise", args.clips, 4, args.repeat)
    in_a_process("blockwise", args.large, 64, 1)
    large = in_a_process("blockwise", args.large, 1, 1)
    print(f"peak memory: {ours['bytes'] / theirs['bytes']:.2f} x the naive form (at most 0.25)")
    print(f"time: {ours['seconds'] / theirs['seconds']:.2f} x the naive form (at most 1.3)")
    print(f"one of 4 ranks: {quarter['seconds'] / ours['seconds']:.2f} x the whole batch in one process (at most 0.35)")
    print(f"batch {args.large}, all rows local: {large['bytes'] / (1 << 30):.2f} GiB (at most 1.2)")


if __name__ == "__main__":
    main()
