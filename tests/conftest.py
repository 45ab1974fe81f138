"""What every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from sayso.root import Root

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A fresh dataset root in a local folder."""
    return Root(str(tmp_path / "root")).create()


@pytest.fixture(scope="session")
def real_media() -> Path | None:
    """The folder of real videos beside the checkout, where there is one."""
    folder = REPOSITORY.parent / "shared" / "media"
    return folder if folder.is_dir() else None
