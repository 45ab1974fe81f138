"""What is kept of each start of a run, so that its figures can be told from another's: FOLDER/starts.jsonl.

A line a start: when and from which step, code (its hash, and the commit where git knows one), versions, machine,
devices, ranks, size of the model, and the peak that MFU refers to. The recipe as resolved lies beside it.
"""

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sayso.code import code_hash
from train.distributed import world_size
from train.run import in_one_move
from train.speed import Peak

STARTS = "starts.jsonl"
_PACKAGES = ("torch", "deepspeed", "numpy", "av")


def record_start(folder: Path, *, start: int, total: int, model: nn.Module, device: torch.device, peak: Peak) -> None:
    """Append this start to the run's record. For rank 0."""
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_step": start,
        "total_steps": total,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "ranks": world_size(),
        "code": {"sha256": code_hash(), **_commit()},
        "environment": _environment(device),
        "peak": asdict(peak),
    }
    path = folder / STARTS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]  # a full disk may have cut the last one
    in_one_move(path, lambda partial: partial.write_text("".join([*whole, json.dumps(facts) + "\n"])))


def _environment(device: torch.device) -> dict[str, Any]:
    facts = {
        "host": platform.node(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "cpus": len(os.sched_getaffinity(0)),
        "device": str(device.type),
    }
    if device.type == "cuda":
        facts |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return facts


def _commit() -> dict[str, Any]:
    """The commit of the checkout that runs, and whether files differ from it; nothing where it is no checkout."""
    git = shutil.which("git")
    folder = Path(__file__).parents[1]
    if git is None or not (folder / ".git").exists():
        return {}
    commit, changed = (
        subprocess.run([git, "-C", folder, *arguments], capture_output=True, text=True, check=False)  # noqa: S603  # ours
        for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    if commit.returncode:
        return {}
    return {"commit": commit.stdout.strip(), "changed": bool(changed.stdout.strip())}
