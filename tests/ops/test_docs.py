"""The pages that the code writes are true, and what the README promises is there."""

from __future__ import annotations

import re
import subprocess
import sys
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


def named_tests(page: str) -> set[str]:
    """The tests that a page names, as pytest does."""
    return set(re.findall(r"tests/[\w/]+\.py::[^`)\n]+", page))


def collected(files: set[str]) -> set[str]:
    """All tests in some files: with their parameters, and once without."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *sorted(files)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = {line for line in ran.stdout.splitlines() if "::" in line}
    return found | {test.partition("[")[0] for test in found}


def test_every_test_that_a_page_names_exists_and_every_crash_window_has_its_line() -> None:
    pages = {page.name: named_tests(page.read_text()) for page in (REPOSITORY / "docs").rglob("*.md")}
    windows = {f"tests/{room}/test_crash_windows.py" for room in ("sayso", "shards")}
    there = collected({test.partition("::")[0] for tests in pages.values() for test in tests} | windows)
    assert {name: tests - there for name, tests in pages.items() if tests - there} == {}
    told = pages["reliability.md"]
    of_windows = {test for test in there if test.partition("::")[0] in windows and test.partition("[")[0] not in told}
    assert of_windows - told - {test.partition("[")[0] for test in told} == set()
