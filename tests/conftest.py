"""What every test may use."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from demo.truth import Said, Seen, VideoSummary, VideoTruth, Word, World
from sayso.root import Root
from tests.seaweed import SeaweedFS

REPOSITORY = Path(__file__).resolve().parents[1]
SAYSO = Path(sys.executable).with_name("sayso")

_SHARED = REPOSITORY.parent / "shared"
_BESIDE = {"real_media": _SHARED / "media", "real_root": _SHARED / "media", "published": _SHARED / "data"}
"""Fixtures of what lies beside a checkout, or does not."""

_TASKS = (
    "make carrot soup",
    "fold a paper boat",
    "make carrot soup",
    "hang a shelf",
    "fold a paper boat",
    "mend a hose",
)
_SECONDS = 8.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests on real media and published files out where those are not: a skipped test looks like a passed one."""
    missing = {name for name, folder in _BESIDE.items() if not folder.is_dir()}
    wanting = [item for item in items if missing & set(getattr(item, "fixturenames", ()))]
    if wanting:
        config.hook.pytest_deselected(items=wanting)
        items[:] = [item for item in items if item not in wanting]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A fresh dataset root in a local folder."""
    return Root(str(tmp_path / "root")).create()


class S3:
    """A running S3 server with one bucket."""

    def __init__(self, server: SeaweedFS) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    def url(self, name: str) -> str:
        """The URL of a root that nobody has used yet."""
        return f"{self.server.bucket('sayso')}/{name}-{next(self._numbers)}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server, whose address and keys stand in the environment from here on to the end of the session."""
    with SeaweedFS(tmp_path_factory.mktemp("s3") / "server") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield S3(server)


@pytest.fixture(scope="session")
def real_media() -> Path:
    """The folder of real videos beside the checkout. For tests collected only where it is there."""
    return _BESIDE["real_media"]


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published annotation files and word vectors. For tests collected only where it is there."""
    return _BESIDE["published"]


@pytest.fixture(scope="session")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root into which the command ingested the real videos, in one go. For tests collected only where those are."""
    root = tmp_path_factory.mktemp("real") / "root"
    command = [SAYSO, "run", "--videos", _BESIDE["real_root"], "--root", root]
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return root


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered world of six videos of a grey picture and a hum, in the folders that `demo.world` makes."""
    world_dir = tmp_path_factory.mktemp("tiny-world")
    (world_dir / "videos").mkdir()
    (world_dir / "truth").mkdir()
    truths = [_truth(index, task) for index, task in enumerate(_TASKS)]
    for index, truth in enumerate(truths):
        (world_dir / "truth" / f"{truth.id}.json").write_text(truth.model_dump_json())
        _render(world_dir / "videos" / f"{truth.id}.mp4", shade=40 * index)
    summaries = [VideoSummary(id=t.id, title=t.title, task=t.task, duration=t.duration) for t in truths]
    (world_dir / "world.json").write_text(World(seed=0, version=1, videos=summaries).model_dump_json())
    return world_dir


def _truth(index: int, task: str) -> VideoTruth:
    said = [
        _said(0.6, f"Today we {task}, <and> it isn't hard!", step=None),
        _said(4.5, "Now I cut the orange carrot in half.", step=0),
    ]
    seen = Seen(
        start=4.8, end=6.5, step=0, action="cut", object="carrot", colour="orange", actor="Anna", description="cuts"
    )
    return VideoTruth(
        id=f"tiny-video{index}"[-11:],
        title=f"How to {task}",
        task=task,
        duration=_SECONDS,
        narrator="Anna",
        uploader="Anna's Workshop",
        upload_date=f"2024010{index + 1}",
        view_count=100 * index,
        said=said,
        seen=[seen],
        sounds=[],
        boxes=[],
    )


def _said(start: float, text: str, *, step: int | None) -> Said:
    words = [
        Word(start=start + 0.25 * place, end=start + 0.25 * place + 0.2, text=word)
        for place, word in enumerate(text.split())
    ]
    return Said(start=start, end=words[-1].end, text=text, words=words, step=step)


def _render(path: Path, *, shade: int) -> None:
    rate = 16_000
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=5, options={"threads": "1", "preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 320, 240, "yuv420p"
        sound = container.add_stream("aac", rate=rate, layout="mono")
        for number in range(int(_SECONDS * 5)):
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), (shade + number) % 256, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        times = np.arange(int(_SECONDS * rate)) / rate
        hum = (0.1 * np.sin(2 * np.pi * 220 * times)).astype(np.float32)[None]
        block = av.AudioFrame.from_ndarray(hum, "fltp", "mono")
        block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))
