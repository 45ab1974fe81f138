"""The ingestion as one visible list of steps, and its configuration as one YAML file.

discover -> fetch -> transcribe, captions -> align ┐
                  -> features                      ┤
discover -> images                                 ┴-> (plan) shard -> manifest
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from align.align import Align, AlignSettings
from align.captions import Captions, CaptionsSettings
from ingest.discover import DiscoverSettings, Recorded, discover, record
from ingest.documents import discover_documents, record_pages
from ingest.fetch import Fetch, FetchSettings
from ingest.images import Images, ImagesSettings
from ingest.sites import SiteSettings
from ingest.sources.manifests import LeftOut
from ingest.transcribe import Transcribe, TranscribeSettings
from ops.show import Bars, counts
from sayso.arrow import MADE_BY, MADE_FROM
from sayso.config import Settings, load, validate
from sayso.engine import Engine, EngineSettings
from sayso.engine.inputs import stage_tally
from sayso.engine.lease import lease
from sayso.errors import InputError
from sayso.root import Root
from sayso.rows import Page, Run, Video
from sayso.sealed import sealed_lines
from sayso.stage import Stage
from shards.plan import Totals, propose, summarise
from shards.settings import ShardSettings
from shards.stage import MakeShards
from train.features.settings import FeaturesSettings

# The configuration of the newest run, kept in the root: status and replay read it.
CONFIG_KEY = "pipeline.yaml"

# Passwords and tokens may stand in these. A root is often shared; who replays a fetch that needs them gives them again.
_NOT_KEPT = {"sites": {"proxy", "extractor_args"}}


class Pipeline(Settings):
    """Everything that decides an ingestion."""

    videos: list[str] = Field(
        default=[], description="what to ingest: folders, lists of URLs, feeds, URLs, searches; --videos adds to them"
    )
    documents: list[str] = Field(
        default=[],
        description="manifests of pictures with texts (CSV, TSV, JSONL, Parquet) or folders of them; "
        "--documents adds to them",
    )
    sites: SiteSettings = SiteSettings()
    discover: DiscoverSettings = DiscoverSettings()
    fetch: FetchSettings = FetchSettings()
    transcribe: TranscribeSettings = TranscribeSettings()
    captions: CaptionsSettings = CaptionsSettings()
    align: AlignSettings = AlignSettings()
    features: FeaturesSettings = FeaturesSettings()
    images: ImagesSettings = ImagesSettings()
    shard: ShardSettings = ShardSettings()
    engine: EngineSettings = EngineSettings()


def load_pipeline(
    config: Path | None, overrides: Sequence[str], videos: Sequence[str], documents: Sequence[str] = ()
) -> Pipeline:
    """The pipeline of a YAML file (or the defaults) with overrides; `videos` and `documents` are added to its own."""
    pipeline = load(Pipeline, config, overrides)
    added = {"videos": [*pipeline.videos, *videos], "documents": [*pipeline.documents, *documents]}
    return pipeline.model_copy(update=added)


def stages_of(root: Root, pipeline: Pipeline | None = None) -> list[Stage[Any, Any]]:
    """The stages in the order of the data's way; by default as the root's newest run configured them.

    Those of documents are among them where there are documents, and those of videos unless there are only documents;
    features where the configuration names models for them.
    """
    pipeline = pipeline or recorded(root)
    with_documents = bool(pipeline.documents) or root.table(Page).exists()
    with_videos = not with_documents or bool(pipeline.videos) or root.table(Video).exists()
    of_videos = [
        Fetch(root, pipeline.fetch, pipeline.sites),
        Transcribe(root, pipeline.transcribe),
        Captions(root, pipeline.captions),
        Align(root, pipeline.align),
        *_features(root, pipeline),
    ]
    of_documents = [Images(root, pipeline.images, pipeline.sites)]
    return [
        *(of_videos if with_videos else ()),
        *(of_documents if with_documents else ()),
        MakeShards(root, pipeline.shard),
    ]


def _features(root: Root, pipeline: Pipeline) -> list[Stage[Any, Any]]:
    if not pipeline.features.wanted:
        return []
    # Torch takes seconds to import, which an ingestion without features need not wait for.
    from train.features.stage import MakeFeatures

    return [MakeFeatures(root, pipeline.features)]


def recorded(root: Root, overrides: Sequence[str] = ()) -> Pipeline:
    """The pipeline of the root's newest run (or the defaults), with overrides."""
    if not root.storage.exists(CONFIG_KEY):
        return load(Pipeline, None, overrides)
    base = yaml.safe_load(root.storage.read(CONFIG_KEY))
    validate(Pipeline, base, f"{root.url}/{CONFIG_KEY}")
    return load(Pipeline, None, overrides, base=base)


def run_pipeline(root: Root, pipeline: Pipeline, only: Sequence[str] | None, bars: Bars) -> list[Stage[Any, Any]]:
    """Run all stages as a stream, or only those named, over what is pending; returns all stages.

    Raises what stops a run; everything settled before that is kept, and the same call goes on from there.
    """
    stages = stages_of(root, pipeline)
    chosen = _chosen(stages, pipeline, only)
    if not chosen and only != ["discover"]:
        known = ", ".join(stage.name for stage in stages)
        raise InputError(
            f"{root.url} holds nothing for {', '.join(only or ())} (its stages: {known}); discover it first"
        )
    for stage in chosen:
        stage.check()
    # Ray says on stdout which of its processes died, where a command's data goes. A run that is refused must leave the
    # configuration of the one at work alone.
    with redirect_stdout(sys.stderr), Engine(root, pipeline.engine) as engine, engine.hold(chosen):
        if only is None or "discover" in only:
            with lease(root, f"{engine.run_id}-discover", ["discover"], engine.pause):
                keep_configuration(root, pipeline, engine.run_id)
                _discover(root, pipeline, engine.run_id, bars)
        else:
            keep_configuration(root, pipeline, engine.run_id)
        engine.run(chosen, bars.watch)
    return stages


def _chosen(stages: Sequence[Stage[Any, Any]], pipeline: Pipeline, only: Sequence[str] | None) -> list[Stage[Any, Any]]:
    """All stages, or those named. ConfigError where one is named that the configuration has nothing for."""
    if only is not None and "features" in only:
        pipeline.features.check()
    return [stage for stage in stages if only is None or stage.name in only]


def keep_configuration(root: Root, pipeline: Pipeline, run_id: str) -> None:
    """For status and replay, and beside the figures of the run."""
    resolved = yaml.safe_dump(pipeline.model_dump(mode="json", exclude=_NOT_KEPT), sort_keys=False).encode()
    resolved = sealed_lines(resolved)
    root.storage.put_bytes(resolved, CONFIG_KEY)
    root.storage.put_bytes(resolved, f"runs/{run_id}.yaml")


def _discover(root: Root, pipeline: Pipeline, run_id: str, bars: Bars) -> None:
    """Note the videos and documents of everything given; those known already stay as they are."""
    if not pipeline.videos and not pipeline.documents:
        if not root.table(Video).exists() and not root.table(Page).exists():
            raise InputError("nothing to ingest: give --videos or --documents, or `videos` in the --config file")
        return
    bars.say(f"discover: looking through {', '.join([*pipeline.videos, *pipeline.documents])}")
    started = time.monotonic()
    found = Recorded(0, 0)
    if pipeline.videos:
        videos = record(root, discover(pipeline.videos, pipeline.discover, pipeline.sites))
        bars.say(f"discover: {videos.new} new videos, {videos.known} known")
        found = videos
    if pipeline.documents:
        documents = _discover_documents(root, pipeline, bars)
        found = Recorded(found.new + documents.new, found.known + documents.known)
    elapsed = max(time.monotonic() - started, 1e-9)
    figures = Run(
        run_id=run_id, stage="discover", elapsed=elapsed, total=found.new + found.known, done=found.new, failed=0,
        in_flight=0, rows_per_second=found.new / elapsed, video_seconds=0.0, video_seconds_per_second=0.0,
        bytes_per_second=0.0, finished=True,
    )  # fmt: skip
    marks = {MADE_BY: "discover", MADE_FROM: run_id}
    root.table(Run).append([{**figures.model_dump(), **marks}])


def _discover_documents(root: Root, pipeline: Pipeline, bars: Bars) -> Recorded:
    left_out = LeftOut()
    pages = discover_documents(pipeline.documents, left_out, pipeline.discover, pipeline.sites)
    found = record_pages(root, pages)
    for line in left_out.examples:
        bars.say(line)
    dropped = f"; rows left out: {counts(left_out.counts)}" if left_out.counts else ""
    bars.say(f"discover: {found.new} new documents, {found.known} known{dropped}")
    return found


def describe(pipeline: Pipeline, url: str, only: Sequence[str] | None) -> dict[str, Any]:
    """What `--dry-run` prints: the resolved configuration, the stages with their needs, and what is pending."""
    root = Root(url)
    stages = _chosen(stages_of(root, pipeline), pipeline, only)
    return {
        "root": root.url,
        "would": [_would(root, stage, pipeline) for stage in stages],
        "configuration": pipeline.model_dump(mode="json"),
    }


def _would(root: Root, stage: Stage[Any, Any], pipeline: Pipeline) -> dict[str, Any]:
    tally = stage_tally(root, stage)
    needs = {"cpus": stage.resources.cpus, "gpus": stage.resources.gpus, "memory_bytes": stage.resources.memory_bytes}
    would: dict[str, Any] = {"stage": stage.name, "pending": tally.pending, "done": tally.done, "a_worker_takes": needs}
    if isinstance(stage, MakeShards):
        planned = summarise(propose(root, pipeline.shard))
        would["new_shards"] = {
            **_counted(planned.total),
            "splits": {split: _counted(totals) for split, totals in planned.splits.items()},
            "left_out": dict(planned.dropped),
        }
    return would


def _counted(totals: Totals) -> dict[str, Any]:
    hours = round(totals.seconds / 3600, 3)
    return {"shards": totals.shards, "samples": totals.samples, "hours": hours, "bytes": totals.bytes}
