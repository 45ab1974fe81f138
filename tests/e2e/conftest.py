"""Running the command as people do, on small worlds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.settings import WorldSettings
from demo.world import make_world
from sayso.root import Root
from tests.contents import content_hash

# Not collected without the media, rather than skipped: a skipped test looks like a passed one.
_MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"
collect_ignore = [] if _MEDIA.is_dir() else ["test_real_run.py"]

SAYSO = Path(sys.executable).with_name("sayso")


class Ran:
    """A finished command: its exit code and what it printed."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ran]


def environment() -> dict[str, str]:
    """The environment of commands: warnings of ours would be seen, thread pools kept small."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def sayso() -> Command:
    """Runs `sayso ARGUMENTS` to its end."""

    def run(*arguments: str | Path, within: float = 240.0) -> Ran:
        command = [str(SAYSO), *map(str, arguments)]
        return Ran(subprocess.run(command, capture_output=True, text=True, timeout=within, env=environment()))

    return run


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts `sayso ARGUMENTS` in a process group of its own, as a shell does."""

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(SAYSO), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    return begin


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a world of four short videos."""
    folder = tmp_path_factory.mktemp("world")
    make_world(WorldSettings(seed=5, videos=4, min_duration=12, max_duration=16), folder, workers=2)
    return folder


@pytest.fixture(scope="session")
def small_videos(small_world: Path) -> Path:
    """The folder with the videos of the small world."""
    return small_world / "videos"


@pytest.fixture(scope="session")
def undisturbed(sayso: Command, small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root into which the small world was ingested in one go."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    ran = sayso("run", "--videos", small_videos, "--root", root)
    assert ran.code == 0, ran.err
    return root


@pytest.fixture(scope="session")
def contents_of() -> Callable[[str | Path], dict[str, str]]:
    """What two runs must agree on, of a root in a folder or under any URL; see `content_hash`."""
    return lambda root: content_hash(Root(str(root)).open())
