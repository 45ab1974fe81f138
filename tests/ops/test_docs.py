"""The pages that the code writes are true, and what the README promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.cli import app
from ops.docs import PAGES

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_written_pages_are_true(name: str) -> None:
    assert (REPOSITORY / "docs" / name).read_text() == PAGES[name](), "run `make docs`"


def test_every_link_in_the_docs_leads_somewhere() -> None:
    for page in [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_command_has_help() -> None:
    for command in app.registered_commands:
        assert command.help or (command.callback and command.callback.__doc__), command.name


def test_every_setting_is_described_or_plain() -> None:
    """A key without a description must be a section or say everything with its name."""
    rows = [line for line in PAGES["configuration.md"]().splitlines() if line.startswith("| `")]
    silent = [row.split("|")[1].strip() for row in rows if not row.split("|")[-2].strip()]
    assert len(rows) > 60
    assert not silent, f"no description: {silent}"
