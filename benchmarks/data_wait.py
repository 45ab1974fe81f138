"""The share of a training step that ranks wait for their clips, on the demo recipe: at most 5 %, with two cores.

    python -m benchmarks.data_wait [--root ROOT] [--steps 48] [--rounds 1] [--workers 0 1 2] [KEY=VALUE ...]

Trains mil_nce_demo for some steps with 0, 1 and 2 decoding processes a rank (data.workers; with 0 a thread of the rank
decodes), in turns, and reads metrics.jsonl. The first steps are left out; what is counted spans several epochs. Beside
it stands what decoding a rank's clips of a step takes by itself on a core, as a share of the step: what there would be
to wait for if nothing were fetched ahead. ROOT is a dataset root such as `sayso demo` leaves; without one a few videos
of the demo world are rendered, normalised and cut as the pipeline does, and taken several times under other names.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from demo.settings import WorldSettings
from demo.truth import VideoTruth
from demo.world import make_world
from ingest.ffmpeg import find_ffmpeg
from ingest.normalise import NormaliseSettings, normalise
from ingest.probe import probe
from sayso.ids import narration_id
from sayso.root import Root
from sayso.rows import Media, Narration, Row, SourceFacts, Video
from shards.clips import make_clip
from shards.settings import ShardSettings
from shards.stage import MakeShards
from train.data import open_reader
from train.launch import launch
from train.metrics import read_metrics
from train.recipe import Recipe, load_recipe

RECIPE, EXPORT = "mil_nce_demo", "clips"
WORLD, COPIES = WorldSettings(videos=6), 10
AT_MOST = 0.05
LEFT_OUT = 8


@dataclass(frozen=True)
class Found:
    """What a run gave."""

    wait: float
    samples_per_second: float
    step_seconds: float


def made_root(folder: Path) -> Root:
    """A root as the demo's, of few videos."""
    world, root = make_world(WORLD, folder / "world"), Root(str(folder / "root")).create()
    ffmpeg = find_ffmpeg()
    for summary in world.videos:
        truth = VideoTruth.model_validate_json((folder / "world" / "truth" / f"{summary.id}.json").read_text())
        target = folder / f"{summary.id}.mp4"
        source = folder / "world" / "videos" / target.name
        normalise(probe(source, folder, ffmpeg), target, NormaliseSettings(), ffmpeg)
        for copy in range(COPIES):
            _put(root, f"demo:{summary.id}{copy}", truth, target)
    make = MakeShards(root, ShardSettings(export=EXPORT, val=0.0, test=0.25, samples_per_shard=100))
    make.begin()
    for plan in make.inputs(make.input_keys().to_pylist()):
        _append(root, make(plan))
    make.end()
    return root


def _put(root: Root, video: str, truth: VideoTruth, proxy: Path) -> None:
    stored = root.storage.put_file(proxy, f"media/{video.replace(':', '_')}/proxy.mp4")
    origin = hashlib.sha256(video.encode()).hexdigest()  # as if each were made of other bytes: copies are left out
    media = Media(
        video_id=video,
        key=stored.key,
        sha256=stored.sha256,
        bytes=stored.bytes,
        duration=truth.duration,
        width=320,
        height=240,
        fps=10,
        audio=True,
        source=SourceFacts(sha256=origin, bytes=stored.bytes, container="mp4", duration=truth.duration),
    )
    narrations = [
        Narration(
            narration_id=narration_id(video, "truth", said.start),
            video_id=video,
            start=said.start,
            end=said.end,
            text=said.text,
            source="truth",
            language="en",
            kept=True,
        )
        for said in truth.said
    ]
    for rows in ([Video(video_id=video, url=f"file:///{video}")], [media], narrations):
        _append(root, rows)


def _append(root: Root, rows: Iterable[Row]) -> None:
    rows = list(rows)
    marks = {"made_by": "benchmark", "made_from": "benchmark"}
    root.table(type(rows[0])).append([{**row.model_dump(), **marks} for row in rows])


def train(overrides: Sequence[str], folder: Path) -> Found:
    """Train, and read what the run says of itself."""
    launch(RECIPE, [*overrides, f"output.folder={folder}"])
    batch = load_recipe(folder / "recipe.yaml").data.batch
    lines = read_metrics(folder / "metrics.jsonl")[LEFT_OUT:]
    seconds = [batch / line["samples_per_second"] for line in lines]
    waited = sum(line["data_wait"] * taken for line, taken in zip(lines, seconds, strict=True))
    return Found(waited / sum(seconds), batch * len(lines) / sum(seconds), sum(seconds) / len(lines))


def decode_seconds(recipe: Recipe) -> float:
    """What a rank's clips of a step take to decode on one core, by themselves."""
    reader, share = open_reader(recipe.data, seed=0), recipe.data.batch // recipe.engine.ranks

    def rounds() -> Iterator[float]:
        samples = reader.raw()
        while batch := list(islice(samples, share)):
            began = time.perf_counter()
            for sample in batch:
                make_clip(sample, recipe.data.clips, "0")
            yield time.perf_counter() - began

    return median(islice(rounds(), 8))


def main() -> None:
    """Print a row for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="a dataset root such as `sayso demo` leaves")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the recipe mil_nce_demo")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        root = asked.root or made_root(folder).url
        where = [f"data.root={root}", f"data.export={EXPORT}", f"schedule.steps={asked.steps}", *asked.overrides]
        found: dict[int, list[Found]] = {workers: [] for workers in asked.workers}
        for number in range(asked.rounds):
            for workers in asked.workers:
                run = train([*where, f"data.workers={workers}"], folder / f"run-{workers}-{number}")
                found[workers].append(run)
        recipe = load_recipe(RECIPE, [*where, f"output.folder={folder / 'none'}"])
        alone = decode_seconds(recipe)
        print(f"steps {LEFT_OUT + 1} to {asked.steps} of {RECIPE}, medians of {asked.rounds} runs")
        for workers, runs in found.items():
            wait, speed, step = (
                median(getattr(run, name) for run in runs) for name in ("wait", "samples_per_second", "step_seconds")
            )
            chosen = " (the recipe's)" if workers == recipe.data.workers else ""
            print(
                f"data.workers={workers}{chosen}: data wait {wait:.1%} of a step (at most {AT_MOST:.0%}), "
                f"{speed:.1f} samples/s, {step * 1000:.0f} ms a step; "
                f"decoding alone {alone * 1000:.0f} ms, {alone / step:.0%} of it"
            )


if __name__ == "__main__":
    main()
