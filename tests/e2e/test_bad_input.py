"""What a person can get wrong: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

SAYSO = Path(sys.executable).with_name("sayso")
Command = Callable[..., Any]


def one_line(ran: Any) -> str:
    """The one line about the error on stderr."""
    lines = [line for line in ran.err.splitlines() if line.startswith("sayso: ")]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    return str(lines[0])


def silent_video(path: Path) -> None:
    """Three seconds of moving picture without a sound stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(30):
            picture = np.full((120, 160, 3), number * 8, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--videos", "/no/such/folder", "--root", "ROOT"], "/no/such/folder"),
        (["run", "--videos", "EMPTY", "--root", "ROOT"], "empty"),
        (["run", "--videos", "VIDEOS", "--root", "FILE/root"], "cannot be written"),
        (["run", "--videos", "VIDEOS", "--root", "ROOT", "fetch.wrong=1"], "unknown key fetch.wrong"),
        (["run", "--videos", "VIDEOS", "--root", "ROOT", "engine.workers=many"], "engine.workers"),
        (["run", "--videos", "VIDEOS", "--root", "ROOT", "--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "--root", "ROOT"], "nothing to ingest: give --videos"),
        (["status", "--root", "ROOT"], "not a sayso root"),
        (["train", "mil_nce_demo", "data.root=ROOT", "output.folder=OUT", "model.wings=2"], "unknown key model.wings"),
        (["train", "no_such_recipe"], "no_such_recipe"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(
    sayso: Command, small_videos: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    places = {"VIDEOS": small_videos, "EMPTY": tmp_path / "empty", "ROOT": tmp_path / "root", "OUT": tmp_path / "out"}
    filled = []
    for argument in arguments:
        text = argument.replace("FILE/root", str(tmp_path / "file" / "root"))
        for name, place in places.items():
            text = text.replace(name, str(place))
        filled.append(text)
    ran = sayso(*filled)
    assert ran.code == 2, ran.err
    assert said in one_line(ran)
    assert ran.out == ""


def test_junk_lines_of_a_list_are_named(sayso: Command, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("https://example.com/watch?v=1\n\nnot a url\n")
    ran = sayso("run", "--videos", listed, "--root", tmp_path / "root")
    assert ran.code == 2
    assert "line 3" in one_line(ran)


def test_a_missing_model_says_where_it_was_looked_for(sayso: Command, small_videos: Path, tmp_path: Path) -> None:
    model = tmp_path / "no-model"
    ran = sayso("run", "--videos", small_videos, "--root", tmp_path / "root", f"transcribe.model={model}")
    assert ran.code == 2
    assert str(model) in one_line(ran)


def test_what_is_no_video_fails_and_what_has_no_sound_is_dropped(
    sayso: Command, small_videos: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(min(small_videos.glob("*.mp4")), videos)
    (videos / "letter.mp4").write_text("dear reader, this is no video")
    silent_video(videos / "silent.mp4")
    root = tmp_path / "root"
    ran = sayso("run", "--videos", videos, "--root", root, "--json")
    assert ran.code == 1
    assert "sayso failures" in one_line(ran)
    stages = {stage["name"]: stage for stage in ran.json()["stages"]}
    assert stages["fetch"]["failed"] == {"not_media": 1}
    assert stages["fetch"]["done"] == 2
    assert stages["transcribe"]["skipped"] == {"no_audio": 1}
    assert stages["shard"]["done"] >= 1
    classes = sayso("failures", "--root", root, "--json").json()
    failed = next(group for group in classes if group["reason"] == "not_media")
    replayed = sayso("replay", "fetch", failed["examples"][0]["id"], "--root", root, "--json")
    assert replayed.code == 1
    assert replayed.json()["reason"] == "not_media"


def test_a_full_disk_is_named_and_nothing_is_lost(
    small_videos: Path, undisturbed: Path, contents_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    """On a file system of its own: too small for the job at first, then large enough."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    run = f"{SAYSO} run --videos {small_videos} --root {disk}/root"
    script = (
        f"mount -t tmpfs -o size=600k tmpfs {disk} && {run}; first=$?; "
        f"mount -o remount,size=200m {disk} && {run} && cp -r {disk}/root {copy}; echo codes $first $?"
    )
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "NO_COLOR": "1"})
    assert "codes 1 0" in ran.stdout, ran.stderr
    said = [line for line in ran.stderr.splitlines() if line.startswith("sayso: ")]
    assert len(said) == 1, ran.stderr
    assert "no space left" in said[0]
    assert contents_of(copy) == contents_of(undisturbed)
