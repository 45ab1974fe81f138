"""The main job on the demo world: make it, serve it, ingest it, train on it, evaluate, and show what came out.

Every step finds what an earlier run has done, so a second run takes seconds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from demo.retrieval import retrieval_pairs, write_protocol
from demo.settings import WorldSettings
from demo.site import PLUGIN_DIR
from demo.site.server import serve
from demo.truth import VideoTruth, World
from demo.world import make_world
from ops import show
from ops.pipeline import Pipeline, run_pipeline
from ops.retrieval import show_retrieval
from ops.status import Status, show_status, status
from sayso.config import validate
from sayso.ids import video_id
from sayso.root import Root
from shards.plan import split_of
from train.evaluate.retrieval import RetrievalResult, evaluate_retrieval
from train.launch import TrainResult, launch

EXTRACTOR = "saysodemo"
RECIPE = "mil_nce_demo"
_EXPORT = "clips"


class DemoResult(BaseModel):
    """What came out of the demo."""

    status: Status
    training: dict[str, Any]
    retrieval: RetrievalResult
    places: dict[str, str]
    next: list[str]


def demo(folder: Path, settings: WorldSettings, recipe_overrides: list[str]) -> DemoResult:
    """Run the main job in a folder and return what came of it. Raises what any of its steps raises."""
    world_folder, root = folder / "world", Root(str(folder / "root")).create()
    world = _world(settings, world_folder)
    with _site(world_folder, folder / "port") as base_url, show.bars() as bars:
        pipeline = demo_pipeline(base_url)
        stages = run_pipeline(root, pipeline, None, bars)
    trained = launch(RECIPE, [f"data.root={root.url}", f"data.export={_EXPORT}", f"output.folder={folder / 'model'}",
                              *recipe_overrides])  # fmt: skip
    pairs = folder / "retrieval.csv"
    write_protocol(held_out_pairs(world, world_folder, pipeline), pairs)
    with show.counter("evaluate") as progress:
        measured = evaluate_retrieval(Path(trained.model), root.url, pairs=pairs, progress=progress)
    return DemoResult(
        status=status(root, stages),
        training=trained.to_json(),
        retrieval=measured,
        places=_places(folder, root, trained, pairs),
        next=_next(folder, root, trained, pairs),
    )


def demo_pipeline(base_url: str) -> Pipeline:
    """The pipeline that ingests the demo site: a playlist, a search and a feed, as with any other site."""
    data = {
        "videos": [f"{base_url}/playlist?list=everything", "saysosearch50:how to", f"{base_url}/feed.xml"],
        "sites": {
            "plugin_dirs": ["default", str(PLUGIN_DIR)],
            "extractor_args": {EXTRACTOR: {"base_url": [base_url]}},
            "allow_private": True,
        },
        "shard": {"export": _EXPORT, "val": 0.0, "test": 0.25, "samples_per_shard": 100},
    }
    return validate(Pipeline, data, "the demo's pipeline")


def held_out_pairs(world: World, folder: Path, pipeline: Pipeline) -> list[Any]:
    """The retrieval protocol over the videos of the test split, known from the truth."""
    truths = (
        VideoTruth.model_validate_json((folder / "truth" / f"{video.id}.json").read_bytes()) for video in world.videos
    )
    held_out = [truth for truth in truths if split_of(_name(truth), pipeline.shard) == "test"]
    return retrieval_pairs(held_out, video_id=_name)


def _name(truth: VideoTruth) -> str:
    return video_id(EXTRACTOR, truth.id)


def _world(settings: WorldSettings, folder: Path) -> World:
    with show.counter("demo world") as progress:
        return make_world(settings, folder, progress=progress)


@contextmanager
def _site(world: Path, port_file: Path) -> Iterator[str]:
    """The site on the port of the first run: the addresses of its videos are kept in the tables."""
    if not port_file.exists():
        port_file.write_text(str(_free_port()))
    with serve(world, port=int(port_file.read_text())) as base_url:
        yield base_url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _places(folder: Path, root: Root, trained: TrainResult, pairs: Path) -> dict[str, str]:
    return {
        "videos as the site has them, and their truth": str(folder / "world"),
        "tables (Delta Lake)": f"{root.url}/tables",
        "proxies": f"{root.url}/media",
        "shards (WebDataset tars)": f"{root.url}/shards/{_EXPORT}",
        "model, checkpoints, metrics": trained.folder,
        "retrieval protocol": str(pairs),
    }


def _next(folder: Path, root: Root, trained: TrainResult, pairs: Path) -> list[str]:
    return [
        f".venv/bin/sayso failures --root {root.url}",
        f".venv/bin/sayso run --videos YOUR_FOLDER_OR_URLS --root {folder.parent / 'my-data'}",
        f".venv/bin/sayso evaluate retrieval --checkpoint {trained.model} --root {root.url} --pairs {pairs} --json",
    ]


def show_demo(result: DemoResult) -> None:
    """Print what came out of the demo."""
    show_status(result.status)
    show_retrieval(result.retrieval)
    show.table("where everything lies", ["what", "where"], [[what, where] for what, where in result.places.items()])
    show.out.print("try next:")
    for command in result.next:
        show.out.print(f"  {command}", markup=False, highlight=False)
