"""Media made on the spot, and the real media beside the checkout where it is there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.ffmpeg import FFmpeg, find_ffmpeg
from ingest.normalise import NormaliseSettings, Proxy, normalise
from ingest.probe import probe

# Not collected without the media, rather than skipped: a skipped test looks like a passed one.
_MEDIA = Path(__file__).resolve().parents[3] / "shared/media"
collect_ignore = [] if _MEDIA.is_dir() else ["test_real_media.py"]


@pytest.fixture(scope="session")
def ffmpeg() -> FFmpeg:
    return find_ffmpeg()


@pytest.fixture
def make(tmp_path: Path, ffmpeg: FFmpeg) -> Callable[..., Path]:
    """Makes a media file from ffmpeg's arguments, those of the program and the output left out."""

    def make(name: str, *arguments: str) -> Path:
        path = tmp_path / name
        quiet = ("-nostdin", "-v", "error", "-y")
        subprocess.run([ffmpeg.path, *quiet, *arguments, str(path)], check=True, timeout=60)
        return path

    return make


@pytest.fixture
def normalised(tmp_path: Path, ffmpeg: FFmpeg) -> Callable[..., Proxy]:
    """Makes the proxy of a file."""
    count = iter(range(1000))

    def normalised(source: Path, settings: NormaliseSettings = NormaliseSettings()) -> Proxy:  # noqa: B008  # frozen
        folder = tmp_path / f"work-{next(count)}"
        folder.mkdir()
        return normalise(probe(source, folder, ffmpeg), folder / "proxy.mp4", settings, ffmpeg)

    return normalised
