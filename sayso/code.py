"""Which code this is: driver and workers must run the same, or one makes rows that the other cannot read.

The hash covers what is installed, not what a version number says: people change code between two releases.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from sayso.errors import UserError

PACKAGES = ("sayso", "ingest", "align", "shards", "train", "ops", "demo")
_DATA = {".py", ".yaml", ".json", ".opus", ".html", ".css", ".js"}
_SHOWN = 12


def folders() -> list[Path]:
    """The folders of the distribution's packages; all lie beside this one."""
    base = Path(__file__).resolve().parents[1]
    return [base / package for package in PACKAGES]


def sources() -> list[Path]:
    """Every source and data file of the packages, in a fixed order."""
    base = Path(__file__).resolve().parents[1]
    found = [
        path
        for folder in folders()
        for path in folder.rglob("*")
        if path.suffix in _DATA and "__pycache__" not in path.parts and path.is_file()
    ]
    return sorted(found, key=lambda path: path.relative_to(base).as_posix())


@cache
def code_hash() -> str:
    """SHA-256 over relative paths and bytes of all sources, read once a process."""
    base = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sources():
        content = path.read_bytes()
        # Lengths keep the end of one file from passing for the beginning of the next.
        digest.update(f"{path.relative_to(base).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def check_same_code(driver_hash: str, node: str = "") -> None:
    """UserError where the process that calls this runs other code than the driver. `node` names where it runs."""
    ours = code_hash()
    if ours != driver_hash:
        raise UserError(
            f"the driver runs sayso {driver_hash[:_SHOWN]}, the worker on node {node or _host()} runs "
            f"{ours[:_SHOWN]}; install the same version on all nodes, or use `sayso submit -- ...`, which brings it along"
        )


def _host() -> str:
    import platform

    return platform.node()
