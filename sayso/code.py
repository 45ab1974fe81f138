"""Which code this is: driver and workers must run the same, or one makes rows that the other cannot read.

The hash covers what is installed, not what a version number says: people change code between two releases.
"""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sayso.errors import UserError

PACKAGES = ("sayso", "ingest", "align", "shards", "train", "ops", "demo")
# What a wheel holds of them; editors and interpreters leave other files beside these.
_KINDS = {".py", ".yaml", ".json", ".opus", ".html", ".css", ".js"}
_SHOWN = 12


def sources() -> dict[str, Path]:
    """Every source and data file of the packages by its name ("ingest/fetch.py"), in a fixed order."""
    found = {
        path.relative_to(folder.parent).as_posix(): path
        for folder in map(_folder, PACKAGES)
        for path in folder.rglob("*")
        if path.suffix in _KINDS and "__pycache__" not in path.parts and path.is_file()
    }
    return dict(sorted(found.items()))


def _folder(package: str) -> Path:
    # A submitted job has each package in a folder of its own.
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None, f"the package {package} is not installed"
    return Path(spec.origin).resolve().parent


@cache
def code_hash() -> str:
    """SHA-256 over names and bytes of all sources, read once a process."""
    digest = hashlib.sha256()
    for name, path in sources().items():
        content = path.read_bytes()
        # Lengths keep the end of one file from passing for the beginning of the next.
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def check_same_code(driver_hash: str, node: str = "") -> None:
    """UserError where the process that calls this runs other code than the driver. `node` says where it runs."""
    ours = code_hash()
    if ours != driver_hash:
        raise UserError(
            f"the driver runs sayso {driver_hash[:_SHOWN]}, the worker on node {node or platform.node()} runs "
            f"{ours[:_SHOWN]}; install the same version on all nodes, or use `sayso submit -- ...`, "
            "which brings it along"
        )
