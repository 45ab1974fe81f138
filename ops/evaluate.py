"""A published protocol from video files as they were downloaded, or from a dataset root that has the videos.

    files named by their ids -> locked-up ffmpeg -> proxies in a root (kept) -> train/evaluate

Files are foreign: they are fetched and normalised by the ingestion's own stage, and only their proxies are decoded
here. A second evaluation finds the proxies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ingest.discover import record
from ingest.sources import folder as media_files
from ops import show
from ops.pipeline import CONFIG_KEY, Pipeline, recorded, run_pipeline
from sayso.caches import is_url
from sayso.engine.failures import FINISHED, newest_failures
from sayso.errors import ConfigError, InputError
from sayso.root import Root
from sayso.rows import Media
from shards.reader import ReaderSettings
from train.evaluate.embed import Embedder
from train.evaluate.protocol import Figures, Protocol, Report, evaluate
from train.evaluate.sight import sight_of
from train.evaluate.videos import Videos, by_name, videos_in_root
from train.mirror import fetch_model
from train.weights import load_model

KEPT = ".sayso"
"""Where the root with the proxies lies in a folder of videos, unless another is named."""
_EXAMPLES = 5
_LABELS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "median_rank": "median rank"}
_PERCENT = {"r1", "r5", "r10", "accuracy", "recall"}


def evaluate_protocol(
    protocol: type[Protocol],
    checkpoint: str | Path,
    annotations: Path,
    *,
    videos: Path | None = None,
    root: str | None = None,
    windows: int | None = None,
    size: int | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> Report:
    """Measure a run's or a model's folder or URL on the videos of a folder of files or of a root.

    `windows` are those of a clip, by default as many as the protocol looks at, `size` is the side of their pictures, by
    default that of training. With `videos` their proxies are made
    in `root` (by default inside the folder), as the settings in `overrides` say.
    Raises InputError, ConfigError, ModelNotFound, RootError for what the user can mend, WorkFailed for a model whose
    embeddings are no numbers.
    """
    if videos is None and root is None:
        raise ConfigError("give --videos, a folder of video files, or --root, a dataset root that has them")
    asked = protocol.read(annotations)
    folder = fetch_model(checkpoint)
    embedder = Embedder(load_model(folder), device, size=size)
    # What the model cannot be asked is said before its videos are ingested, which may take hours.
    sight_of(embedder, output=asked.output).looks(asked.looks(windows))
    if videos is not None:
        opened = Root(root or str(videos / KEPT))
        there = prepare(asked.video_ids(), videos, opened, embedder.clips, overrides)
    elif overrides:
        raise ConfigError(f"{overrides[0]}: settings say how the files of --videos are ingested; give --videos")
    else:
        assert root is not None
        there = videos_in_root(asked.video_ids(), Root(root).open())
    with show.counter(asked.unit) as progress:
        model = checkpoint if is_url(checkpoint) else folder
        return evaluate(
            asked, embedder, there, windows=windows, annotations=annotations, model=str(model), progress=progress
        )


def prepare(
    asked: Sequence[str], videos: Path, root: Root, clips: ReaderSettings, overrides: Sequence[str] = ()
) -> Videos:
    """Ingest those files of a folder that are asked for and not in the root yet, fit for a model that looks at `clips`.

    InputError where the folder has none of them.
    """
    asked = list(dict.fromkeys(asked))
    files = find_files(asked, videos)
    if not files:
        raise InputError(
            f"{videos}: none of the {len(asked)} videos of the annotations is there; a file must be named by its "
            f"video's id, as in {asked[0]}.mp4"
        )
    found = {name: next(media_files.find(file)) for name, file in files.items()}
    root.create()
    pipeline = pipeline_of(root, clips, overrides)
    record(root, {video.video_id: video for video in found.values()}.values())
    ids = {name: video.video_id for name, video in found.items()}
    if set(ids.values()) - _settled(root):
        with show.bars() as bars:
            run_pipeline(root, pipeline, ["fetch"], bars)
    return _videos(asked, ids, root)


def pipeline_of(root: Root, clips: ReaderSettings, overrides: Sequence[str]) -> Pipeline:
    """The pipeline of the root's newest run; a new root gets proxies with all that a model that looks at `clips` sees.

    What the user says stands over both.
    """
    fps, short_side = max(10, math.ceil(clips.fps)), max(256, clips.size)
    fitting = [f"fetch.profile.fps={fps}", f"fetch.profile.short_side={short_side}"]
    return recorded(root, [*([] if root.storage.exists(CONFIG_KEY) else fitting), *overrides])


def find_files(asked: Sequence[str], videos: Path) -> dict[str, Path]:
    """The file of each id, in the folder or in folders in it.

    A file is named by the id, with any ending of a video file, or as yt-dlp names it by itself: TITLE [ID].webm.
    InputError where the folder is none.
    """
    if not videos.is_dir():
        raise InputError(f"{videos}: no such folder")
    files = [
        path
        for path in sorted(videos.rglob("*"))
        if path.suffix.lower() in media_files.VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(videos).parts)
        and path.is_file()
    ]
    named = by_name((path, path) for path in files)
    return {name: named[name] for name in asked if name in named}


def _settled(root: Root) -> set[str]:
    """Ids of the videos that are fetched, or never will be."""
    failures = newest_failures(root, "fetch").to_pylist()
    return {*root.table(Media).keys().to_pylist(), *(row["id"] for row in failures if row["kind"] in FINISHED)}


def _videos(asked: Sequence[str], ids: Mapping[str, str], root: Root) -> Videos:
    """What came of the files; `ids` are those of the root by those of the annotations."""
    media = {row.video_id: row for row in root.table(Media).rows(video_id=set(ids.values()))}
    reasons = {row["id"]: f"fetch: {row['reason']}" for row in newest_failures(root, "fetch").to_pylist()}
    there: dict[str, Media] = {}
    missing: dict[str, str] = {}
    for name in asked:
        row = media.get(ids.get(name, ""))
        if row is not None and row.width:
            there[name] = row
        elif name not in ids:
            missing[name] = "no such file"
        else:
            missing[name] = "no picture" if row else reasons.get(ids[name], "not fetched")
    return Videos(root, there, missing)


def show_report(report: Report) -> None:
    """Print a report: its figures beside chance, its parts, what it rests on and what is missing."""
    videos = report.videos
    title = f"{report.protocol}: {report.used} of {report.of} {report.unit}"
    if report.unit != "videos":
        title += f", {videos.found} of {videos.of} videos"
    rows = [
        [_LABELS.get(name, name), _figure(name, value), _figure(name, report.chance.get(name))]
        for name, value in report.metrics.items()
    ]
    show.table(title, ["metric", "model", "chance"], rows, right=frozenset({"model", "chance"}))
    if report.parts:
        _show_parts(report.parts)
    for line in [*missing_lines(report.missing), *report.notes]:
        show.out.print(line, markup=False, highlight=False)


def _show_parts(parts: Mapping[str, Figures]) -> None:
    names = list(next(iter(parts.values())))
    columns = [_LABELS.get(name, name) for name in names]
    rows = [[part, *(_figure(name, figures.get(name)) for name in names)] for part, figures in parts.items()]
    show.table("in parts", ["part", *columns], rows, right=frozenset(columns))


def missing_lines(missing: Mapping[str, str]) -> Iterator[str]:
    """A line for each reason, with the number of videos and the first few."""
    for why in dict.fromkeys(missing.values()):
        ids = [video_id for video_id, reason in missing.items() if reason == why]
        more = ", ..." if len(ids) > _EXAMPLES else ""
        yield f"missing ({why}): {len(ids)} videos: {', '.join(ids[:_EXAMPLES])}{more}"


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f} %" if name in _PERCENT else f"{value:g}"
