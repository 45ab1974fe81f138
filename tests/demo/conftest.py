"""A small rendered world for the tests that look at and listen to real files."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.settings import WorldSettings
from demo.truth import VideoTruth, World
from demo.world import make_world


@dataclass(frozen=True)
class RenderedWorld:
    """Where a small world lies, and what it was made from."""

    folder: Path
    settings: WorldSettings
    contents: World

    def truths(self) -> list[VideoTruth]:
        """The truth of every video, read from its file."""
        files = [self.folder / "truth" / f"{video.id}.json" for video in self.contents.videos]
        return [VideoTruth.model_validate_json(file.read_bytes()) for file in files]

    def film(self, truth: VideoTruth) -> Path:
        """The file of a video."""
        return self.folder / "videos" / f"{truth.id}.mp4"


@pytest.fixture(scope="session")
def rendered_world(tmp_path_factory: pytest.TempPathFactory) -> RenderedWorld:
    """Two videos of 14-18 seconds."""
    settings = WorldSettings(seed=7, videos=2, min_duration=14, max_duration=18)
    folder = tmp_path_factory.mktemp("rendered-world")
    return RenderedWorld(folder, settings, make_world(settings, folder, workers=1))
