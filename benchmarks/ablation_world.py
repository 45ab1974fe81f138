"""The worlds of benchmarks/ablation.py: drawn, ingested, and for the held-out one its retrieval protocols.

world of a (seed, noise) -> proxies, narrations, shards     what is trained on, all of it
held-out world           -> proxies, protocols as CSV       what every model is asked about

Plans, pictures and stages are those of the demo. Two things are spared, since they decide nothing here and cost most:
films are drawn at the 10 pictures a second that proxies keep, without sound; and instead of what Whisper hears of the
narrators, their words lie beside the films as a person's captions (WebVTT with its marks).
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import av

from demo.film import X264
from demo.plan import plan_videos
from demo.retrieval import retrieval_pairs, write_protocol
from demo.scenes import frame
from demo.settings import WorldSettings
from demo.site.captions import human_vtt
from demo.truth import HEIGHT, WIDTH, VideoTruth
from ops import show
from ops.pipeline import Pipeline, run_pipeline
from sayso.config import validate
from sayso.root import Root

EXPORT = "clips"
# Stages of a world that is trained on, and of one that is only looked at.
_WHOLE = ("discover", "fetch", "transcribe", "captions", "align", "shard")
_PICTURES = ("discover", "fetch")
_MADE = "made"
"""The mark of a world that is ingested."""
_FPS = 10


def trained_world(folder: Path, settings: WorldSettings, jobs: int) -> Root:
    """The root of a world to train on: every video of it is in split train."""
    return _ingested(folder, settings, _WHOLE, jobs)


def held_out_world(folder: Path, settings: WorldSettings, videos: int, jobs: int) -> tuple[Root, list[Path]]:
    """The root of a world to be asked about, and its protocols, each over so many of its videos.

    A text has one right answer among the clips of a protocol, so a protocol cannot grow beyond the 43 descriptions
    that there are. More videos make more protocols.
    """
    root = _ingested(folder, settings, _PICTURES, jobs)
    truths, protocols = plan_videos(settings), []
    for first in range(0, len(truths), videos):
        path = folder / f"protocol-{first // videos + 1}.csv"
        write_protocol(retrieval_pairs(truths[first : first + videos]), path)
        protocols.append(path)
    return root, protocols


def _ingested(folder: Path, settings: WorldSettings, stages: tuple[str, ...], jobs: int) -> Root:
    """The root of a world. What was stopped goes on, what is finished is left as it is."""
    root = Root(str(folder / "root"))
    if (folder / _MADE).exists():
        return root.open()
    films = folder / "films"
    films.mkdir(parents=True, exist_ok=True)
    _draw(plan_videos(settings), films, jobs)
    with show.bars() as bars:
        run_pipeline(root.create(), _pipeline(films), stages, bars)
    (folder / _MADE).touch()
    return root.open()


def _pipeline(films: Path) -> Pipeline:
    data = {
        "videos": [str(films)],
        # A little larger than what is looked at (73 px): such pictures are decoded in a tenth of the time.
        "fetch": {"profile": {"short_side": 80, "crf": 18, "fps": _FPS}},
        "shard": {"export": EXPORT, "val": 0.0, "test": 0.0, "samples_per_shard": 100},
    }
    return validate(Pipeline, data, "the ablation's pipeline")


def _draw(truths: Iterable[VideoTruth], films: Path, jobs: int) -> None:
    """Draw the films of a world that are not there yet."""
    missing = [truth for truth in truths if not (films / f"{truth.id}.mp4").exists()]
    # Spawned, since forking a process that already has threads (Ray, torch) can hang.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_ignore_ctrl_c)
    with pool, show.counter("films") as progress:
        for done, _ in enumerate(pool.map(_write, missing, repeat(films)), start=1):
            progress(done, len(missing))


def _ignore_ctrl_c() -> None:
    """A terminal sends it to all; the parent alone decides, and lets the films at hand be finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write(truth: VideoTruth, films: Path) -> None:
    """A silent film and its captions; the film comes last, whole, and so vouches for both."""
    (films / f"{truth.id}.en.vtt").write_text(human_vtt(truth))
    partial = films / f"{truth.id}.partial"
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {**X264}
        for index in range(int(truth.duration * _FPS)):
            image = av.VideoFrame.from_ndarray(frame(truth, index / _FPS), format="rgb24")
            image.pts, image.time_base = index, Fraction(1, _FPS)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    partial.replace(films / f"{truth.id}.mp4")
