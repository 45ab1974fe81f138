"""The hash of the code tells two versions apart, and only those."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sayso.code import PACKAGES, check_same_code, code_hash, sources
from sayso.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages in another place, as a wheel or an upload puts them."""
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _hash_in(folder: Path) -> str:
    ask = [sys.executable, "-c", "from sayso.code import code_hash; print(code_hash())"]
    ran = subprocess.run(ask, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)
    assert not ran.stderr
    return ran.stdout.strip()


def test_the_hash_does_not_depend_on_where_the_code_lies(copy: Path) -> None:
    assert _hash_in(copy) == code_hash()
    assert (copy / "sayso" / "__pycache__").exists(), "compiled files came about and did not count"


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename", "data"])
def test_every_change_of_the_code_shows(copy: Path, change: str) -> None:
    match change:
        case "edit":
            (copy / "ingest" / "fetch.py").write_text("# other\n")
        case "add":
            (copy / "shards" / "more.py").touch()
        case "remove":
            (copy / "train" / "schedule.py").unlink()
        case "rename":
            (copy / "train" / "schedule.py").rename(copy / "train" / "schedules.py")
        case "data":
            (copy / "train" / "recipes" / "mil_nce_demo.yaml").write_text("{}")
    assert _hash_in(copy) != code_hash()


def test_everything_that_is_installed_is_covered() -> None:
    """A kind of data file that is added later must not be left out of the hash."""
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    tracked = {line for line in listed.stdout.splitlines() if (REPOSITORY / line).exists()}
    assert tracked - set(sources()) <= {"demo/speech/LICENSE", "ops/kuberay/Dockerfile"}


def test_a_wheel_is_the_same_code(copy: Path, tmp_path: Path) -> None:
    """What is installed from a wheel counts as the checkout that it was built from."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "."]
    made = subprocess.run([*build, "--wheel-dir", str(tmp_path / "wheel")], cwd=copy, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    [wheel] = (tmp_path / "wheel").glob("sayso-*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    assert _hash_in(tmp_path / "installed") == code_hash()


def test_it_is_quick() -> None:
    begun = time.perf_counter()
    for _ in range(10):
        code_hash.__wrapped__()
    assert (time.perf_counter() - begun) / 10 < 0.05


def test_a_worker_of_other_code_is_refused_with_both_hashes() -> None:
    check_same_code(code_hash())
    other = "0123456789abcdef" * 4
    with pytest.raises(UserError) as refused:
        check_same_code(other, "10.0.0.7")
    assert other[:12] in str(refused.value)
    assert code_hash()[:12] in str(refused.value)
    assert "10.0.0.7" in str(refused.value)
    assert "sayso submit" in str(refused.value)
