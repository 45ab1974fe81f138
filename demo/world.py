"""Makes a demo world in a folder: plans it, renders it, and finds it whole the second time.

    WORLD/world.json         the table of contents (demo.truth.World)
    WORLD/videos/<id>.mp4    what is seen and heard
    WORLD/truth/<id>.json    what is true of it (demo.truth.VideoTruth)
    WORLD/made.json          the settings it was made with, and the sha256 of every file

A file is written beside its place and moved there, and world.json comes last: a call that dies half-way leaves only
whole files, and the next call with the same settings makes what is missing.
"""

import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from demo.film import write_film
from demo.plan import plan_videos
from demo.scenes import boxes
from demo.settings import WorldSettings
from demo.truth import VideoSummary, VideoTruth, World

VERSION = 1  # raised when the same settings make other bytes than before
BOXES_HZ = 5

Progress = Callable[[int, int], None]


class Made(BaseModel):
    """What a finished world was made from, and what its files must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    settings: WorldSettings
    sha256: dict[str, str]


def plan_world(settings: WorldSettings) -> list[VideoTruth]:
    """The full truth of every video of a world, boxes included; nothing is written."""
    return [with_boxes(truth) for truth in plan_videos(settings)]


def with_boxes(truth: VideoTruth) -> VideoTruth:
    """The truth with the boxes of everything visible, five times a second."""
    times = [index / BOXES_HZ for index in range(int(truth.duration * BOXES_HZ))]
    return truth.model_copy(update={"boxes": [boxes(truth, time) for time in times]})


def make_world(settings: WorldSettings, out: Path, workers: int = 2, progress: Progress | None = None) -> World:
    """Render a world into a folder and return its table of contents.

    A whole world with these settings is only checked; of an unfinished one only the missing videos are made. A folder
    that holds a world with other settings is made anew. `progress(done, total)` is called after every video.
    """
    tell = progress or (lambda done, total: None)
    whole = _read_whole(settings, out)
    if whole is not None:
        tell(settings.videos, settings.videos)
        return whole
    for folder in ("videos", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    (out / "world.json").unlink(missing_ok=True)
    plans = plan_videos(settings)
    _remove_others(out, settings, {plan.id for plan in plans})
    for done, _ in enumerate(_render_all(plans, out, workers), start=1):
        tell(done, len(plans))
    return _finish(settings, out, plans)


def _render_all(plans: list[VideoTruth], out: Path, workers: int) -> Iterator[None]:
    if workers <= 1:
        yield from map(_render, plans, repeat(out))
        return
    # Spawned, since forking a process that already has threads (Ray, torch) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_ignore_ctrl_c) as pool:
        yield from pool.map(_render, plans, repeat(out))


def _ignore_ctrl_c() -> None:
    """A terminal sends Ctrl-C to the whole group; the parent alone decides, and lets the video at hand be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render(plan: VideoTruth, out: Path) -> None:
    """Make the two files of a video unless both are there; the truth comes last and so vouches for the video."""
    film, facts = out / "videos" / f"{plan.id}.mp4", out / "truth" / f"{plan.id}.json"
    if film.exists() and facts.exists():
        return
    partial = film.with_suffix(".partial")
    write_film(plan, partial)
    partial.replace(film)
    _write_text(facts, with_boxes(plan).model_dump_json())


def _finish(settings: WorldSettings, out: Path, plans: list[VideoTruth]) -> World:
    summaries = [VideoSummary(id=plan.id, title=plan.title, task=plan.task, duration=plan.duration) for plan in plans]
    world = World(seed=settings.seed, version=VERSION, videos=summaries)
    digests = {str(path.relative_to(out)): _sha256(path) for path in _files(out)}
    _write_text(out / "made.json", Made(version=VERSION, settings=settings, sha256=digests).model_dump_json())
    _write_text(out / "world.json", world.model_dump_json(indent=1))
    return world


def _read_whole(settings: WorldSettings, out: Path) -> World | None:
    """The world in a folder if it was made with these settings and every file still holds what it held."""
    try:
        world = World.model_validate_json((out / "world.json").read_bytes())
        made = Made.model_validate_json((out / "made.json").read_bytes())
    except (OSError, ValidationError):
        return None
    if made.version != VERSION or made.settings != settings:
        return None
    broken = [name for name, digest in made.sha256.items() if _sha256(out / name) != digest]
    for name in broken:
        (out / name).unlink(missing_ok=True)
    return None if broken else world


def _remove_others(out: Path, settings: WorldSettings, ids: set[str]) -> None:
    """Remove what a world with other settings left; a finished one names its settings, an unfinished one its plan."""
    mark = out / "plan.json"
    plan = Made(version=VERSION, settings=settings, sha256={}).model_dump_json()
    same = mark.exists() and mark.read_text().strip() == plan
    for path in _files(out):
        if not same or path.stem not in ids:
            path.unlink()
    for path in out.glob("*/*.partial"):
        path.unlink()
    _write_text(mark, plan)


def _files(out: Path) -> list[Path]:
    return sorted([*out.glob("videos/*.mp4"), *out.glob("truth/*.json")])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n")
    partial.replace(path)
