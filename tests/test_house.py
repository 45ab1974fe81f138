"""The house stands where it should: every package resolves inside this repository, and the arrows hold."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ["sayso", "ingest", "align", "shards", "train", "ops", "demo"]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_resolve_inside_the_repository(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == REPOSITORY / room / "__init__.py"
    assert module.__doc__


def test_the_arrows_of_the_design_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_a_forbidden_arrow_would_be_found(tmp_path: Path) -> None:
    """The contracts bite: with an import of ops in the ground floor they break."""
    for room in ROOMS:
        (tmp_path / room).symlink_to(REPOSITORY / room) if room != "sayso" else None
    floor = tmp_path / "sayso"
    floor.mkdir()
    for path in (REPOSITORY / "sayso").iterdir():
        if path.name != "__init__.py":
            (floor / path.name).symlink_to(path)
    (floor / "__init__.py").write_text("import ops.show\n")
    (tmp_path / "pyproject.toml").symlink_to(REPOSITORY / "pyproject.toml")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode != 0
    assert "sayso -> ops" in ran.stdout


def test_the_demo_is_small() -> None:
    size = sum(
        path.stat().st_size
        for path in (REPOSITORY / "demo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert size < 5 * 2**20
