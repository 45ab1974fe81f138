"""Several stages at once: a row goes on as soon as what it waits for is settled, and no further than it should."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import ray

from sayso.engine import Engine, EngineSettings, Progress
from sayso.engine.cluster import place
from sayso.errors import Permanent, Retry, UserError
from sayso.root import Root
from sayso.rows import Media, Narration, Shard, SourceFacts, Transcript, Video
from sayso.stage import Resources, Stage

SETTINGS = EngineSettings(workers=2, backoff=0.05, commit_seconds=0.2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for all tests of this file."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


def diary(root: Root, what: str) -> None:
    """Note the moment at which something was done."""
    with Path(root.url, "diary").open("a") as file:
        file.write(f"{time.monotonic()} {what}\n")


def read_diary(root: Root) -> list[str]:
    lines = (line.split(maxsplit=1) for line in Path(root.url, "diary").read_text().splitlines())
    return [what for _, what in sorted((float(moment), what) for moment, what in lines)]


class First(Stage[Video, Media]):
    name, reads, writes = "first", Video, Media

    def __init__(self, root: Root, seconds: float = 0.1) -> None:
        super().__init__(root)
        self.seconds = seconds

    def __call__(self, row: Video) -> Sequence[Media]:
        time.sleep(self.seconds)
        diary(self.root, f"first {row.video_id}")
        facts = SourceFacts(sha256="", bytes=0, container="mp4", duration=10.0)
        return [
            Media(
                video_id=row.video_id, key=row.title, sha256="", bytes=7, duration=10.0, width=1, height=1, fps=10.0,
                audio=True, source=facts,
            )
        ]  # fmt: skip


class Second(Stage[Media, Transcript]):
    name, reads, writes = "second", Media, Transcript

    def __init__(self, root: Root, seconds: float = 0.1) -> None:
        super().__init__(root)
        self.seconds = seconds

    def __call__(self, row: Media) -> Sequence[Transcript]:
        time.sleep(self.seconds)
        diary(self.root, f"second {row.video_id}")
        match row.key:
            case "permanent":
                raise Permanent("no_good")
            case "retry":
                raise Retry("http_503")
        return [Transcript(video_id=row.video_id, source="asr:x", language="en", speech_seconds=0.0, spans=[])]


class Gated(Stage[Media, Narration]):
    name, reads, writes, after = "gated", Media, Narration, {"second": Transcript}

    def __call__(self, row: Media) -> Sequence[Narration]:
        diary(self.root, f"gated {row.video_id}")
        return [
            Narration(
                narration_id=row.video_id, video_id=row.video_id, start=0, end=1, text="", source="", language="",
                kept=True,
            )
        ]  # fmt: skip


class Whole(Stage[Narration, Shard]):
    name, reads, writes, whole = "whole", Narration, Shard, True

    def begin(self) -> None:
        diary(self.root, "begin")

    def end(self) -> None:
        diary(self.root, "end")

    def __call__(self, row: Narration) -> Sequence[Shard]:
        diary(self.root, f"whole {row.video_id}")
        return [
            Shard(
                export="x", shard=row.video_id, split="train", version=0, key="", sha256="", bytes=0, index_key="",
                index_sha256="", index_bytes=0, samples=0, seconds=0, video_ids=[],
            )
        ]  # fmt: skip


def add(root: Root, titles: Sequence[str], first: int = 0) -> None:
    rows = [Video(video_id=f"v{i:03}", url="", title=title) for i, title in enumerate(titles, first)]
    root.table(Video).append([{**row.model_dump(), "made_by": "test", "made_from": ""} for row in rows])


def run(*stages: Stage, settings: EngineSettings = SETTINGS) -> dict[str, Progress]:  # type: ignore[type-arg]
    with Engine(stages[0].root, settings) as engine:
        return {progress.stage: progress for progress in engine.run(stages)}


def test_a_row_goes_on_while_others_are_still_in_the_stage_before(root: Root) -> None:
    add(root, [""] * 60)
    done = run(First(root), Second(root), Gated(root), Whole(root))
    assert {name: progress.tally.done for name, progress in done.items()} == dict.fromkeys(done, 60)
    told = read_diary(root)
    last_first = max(place for place, what in enumerate(told) if what.startswith("first"))
    for stage in ("second", "gated"):
        assert any(what.startswith(stage) for what in told[:last_first]), f"{stage} waited for all of first"
    assert len(told) == len(set(told)), "a row was worked on twice"


def test_a_whole_stage_begins_when_all_before_it_rest_and_ends_once(root: Root) -> None:
    add(root, [""] * 6)
    run(First(root), Second(root), Gated(root), Whole(root))
    told = read_diary(root)
    assert told.count("begin") == told.count("end") == 1
    assert {what.split()[0] for what in told[: told.index("begin")]} == {"first", "second", "gated"}
    assert sum(what.startswith("gated") for what in told[: told.index("begin")]) == 6
    assert told[-1] == "end"


def test_a_gate_opens_for_what_is_settled_and_not_for_what_will_be_tried_again(root: Root) -> None:
    add(root, ["", "permanent", "retry"])
    done = run(First(root), Second(root), Gated(root))
    assert sorted(row.video_id for row in root.table(Narration).rows()) == ["v000", "v001"]
    assert (done["gated"].tally.pending, done["gated"].gated) == (1, 1)
    told = read_diary(root)
    for video in ("v000", "v001"):
        assert told.index(f"second {video}") < told.index(f"gated {video}")


def test_a_stage_alone_waits_for_the_stages_before_it_too(root: Root) -> None:
    add(root, [""])
    run(First(root))
    assert run(Gated(root))["gated"].tally.done == 0
    run(Second(root))
    assert run(Gated(root))["gated"].tally.done == 1


def test_a_stage_pauses_while_the_next_has_a_backlog(root: Root) -> None:
    add(root, [""] * 60)
    settings = SETTINGS.model_copy(update={"backlog_rows": 5, "batch_seconds": 1e-9, "commit_seconds": 0.05})
    run(OneCpu(root, 0.0), Second(root, 0.1), settings=settings)
    ahead = 0
    most = 0
    for what in read_diary(root):
        ahead += 1 if what.startswith("first") else -1
        most = max(most, ahead)
    assert ahead == 0
    assert most <= 20, f"{most} rows between two stages with a backlog of 5"


class OneCpu(First):
    """Has workers of its own, so that it could run far ahead."""

    resources = Resources(cpus=0.5)


def test_kinds_that_do_not_fit_at_once_take_turns(root: Root) -> None:
    add(root, [""] * 24)
    settings = SETTINGS.model_copy(update={"workers": 1, "backlog_rows": 8, "node_limit": 4.0})
    done = run(OneCpu(root, 0.02), Second(root, 0.02), settings=settings)
    assert {name: progress.tally.done for name, progress in done.items()} == {"first": 24, "second": 24}
    turns = [what.split()[0] for what in read_diary(root)]
    changes = sum(before != after for before, after in itertools.pairwise(turns))
    assert changes <= 7, f"workers were ended and started {changes} times"


def share(
    nodes: Sequence[Mapping[str, float]], wanted: Mapping[Resources, int], most: int | None
) -> dict[Resources, int]:
    """How many workers of each kind are placed in all."""
    placed = place(nodes, wanted, most)
    return {needs: sum(node[needs] for node in placed) for needs in wanted}


def test_kinds_of_workers_share_what_the_nodes_have() -> None:
    cpu, gpu = Resources(cpus=1), Resources(cpus=1, gpus=1)
    half = Resources(cpus=0.5)
    nodes = [{"CPU": 4.0, "memory": 8e9}, {"CPU": 4.0, "GPU": 1.0, "memory": 8e9}]
    assert share(nodes, {cpu: 100, gpu: 100}, None) == {cpu: 7, gpu: 1}
    assert share(nodes[::-1], {cpu: 100, gpu: 100}, None) == {cpu: 7, gpu: 1}
    assert place([{"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0}], {cpu: 2, gpu: 2}, None) == [{gpu: 1}, {cpu: 1}]
    assert share(nodes, {cpu: 2, gpu: 0}, None) == {cpu: 2, gpu: 0}
    assert share(nodes, {cpu: 100, gpu: 100}, 3) == {cpu: 2, gpu: 1}
    assert share(nodes, {half: 100}, None) == {half: 16}
    assert share([{"CPU": 2.0}], {cpu: 9, half: 9}, None) == {cpu: 1, half: 2}
    assert share([{"CPU": 8.0, "memory": 8e9}], {Resources(cpus=1, memory_bytes=3 * 10**9): 9}, None).popitem()[1] == 2


def test_needs_that_this_machine_cannot_meet_are_refused(root: Root) -> None:
    class Hungry(First):
        resources = Resources(cpus=1.0, gpus=1.0)

    add(root, [""])
    with pytest.raises(UserError, match="no node has 1 cpus and 1 gpus"):
        run(Hungry(root))
