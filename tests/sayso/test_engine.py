"""The engine: nothing lost, nothing doubled, neighbours unharmed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence

import pytest
import ray

from sayso.engine import Engine, EngineSettings, Progress
from sayso.engine.ledger import newest_failures
from sayso.errors import ModelNotFound, NoSpace, Permanent, Retry, Skip, TooManyBugs
from sayso.root import Root
from sayso.rows import Media, SourceFacts, Video
from sayso.stage import Stage

SETTINGS = EngineSettings(workers=2, backoff=0.05, commit_seconds=0.2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for all tests of this file."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


class Behave(Stage[Video, Media]):
    """Does to each row what its title says."""

    name = "behave"
    reads = Video
    writes = Media

    def time_limit(self, row: Video) -> float:
        return 2.0

    def video_seconds(self, row: Video, made: Sequence[Media]) -> float:
        return 10.0

    def __call__(self, row: Video) -> Sequence[Media]:
        match row.title:
            case "skip":
                raise Skip("no_speech")
            case "permanent":
                raise Permanent("http_404", "gone")
            case "retry":
                raise Retry("http_503")
            case "flaky":
                mark = f"{self.root.url}/tried-{row.video_id}"
                if not os.path.exists(mark):  # noqa: PTH110
                    open(mark, "w").close()  # noqa: PTH123
                    raise Retry("http_503")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(60)
            case "bug":
                raise ZeroDivisionError("made for this test")
            case "full":
                raise OSError(28, "No space left on device")
        return [media(row.video_id)]


class NoModel(Behave):
    name = "no_model"

    def open(self) -> None:
        raise ModelNotFound("tiny.en: looked here and there")


def media(video_id: str) -> Media:
    facts = SourceFacts(sha256="", bytes=0, container="mp4", duration=10.0)
    return Media(
        video_id=video_id, key=f"media/{video_id}", sha256="", bytes=7, duration=10.0, width=1, height=1, fps=10.0,
        audio=True, source=facts,
    )  # fmt: skip


def add(root: Root, titles: Sequence[str], first: int = 0) -> None:
    rows = [Video(video_id=f"v{i}", url=f"http://x/{i}", title=title) for i, title in enumerate(titles, first)]
    marks = {"made_by": "test", "made_from": ""}
    root.table(Video).append([{**row.model_dump(), **marks} for row in rows])


def run(stage: Behave) -> Progress:
    with Engine(stage.root, SETTINGS) as engine:
        return engine.run(stage)


def made(root: Root) -> list[str]:
    return sorted(row.video_id for row in root.table(Media).rows())


def test_every_row_once_and_a_second_run_does_nothing(root: Root) -> None:
    add(root, ["fine"] * 20)
    progress = run(Behave(root))
    assert made(root) == sorted(f"v{i}" for i in range(20))
    assert (progress.tally.done, progress.video_seconds, progress.stored_bytes) == (20, 200.0, 140)
    again = run(Behave(root))
    assert (again.settled, again.tally.done) == (0, 20)


def test_refusals_are_counted_by_reason_and_not_tried_again(root: Root) -> None:
    add(root, ["skip", "permanent", "fine"])
    tally = run(Behave(root)).tally
    assert (dict(tally.skipped), dict(tally.failed), tally.done) == ({"no_speech": 1}, {"http_404": 1}, 1)
    again = run(Behave(root))
    assert again.settled == 0
    assert dict(again.tally.skipped) == {"no_speech": 1}


def test_retries_go_through_and_what_does_not_is_tried_in_the_next_run(root: Root) -> None:
    add(root, ["flaky", "retry"])
    tally = run(Behave(root)).tally
    assert made(root) == ["v0"]
    assert dict(tally.failed) == {"http_503": 1}
    failure = newest_failures(root, "behave")["v1"]
    assert (failure.kind, failure.attempts) == ("retry", 3)
    again = run(Behave(root))
    assert again.settled == 3


def test_deadly_rows_are_quarantined_and_their_neighbours_unharmed(root: Root) -> None:
    add(root, ["fine", "die", "fine", "hang", *["fine"] * 8])
    tally = run(Behave(root)).tally
    assert tally.done == 10
    assert dict(tally.failed) == {"worker_died": 1, "timeout": 1}
    failures = newest_failures(root, "behave")
    assert {key: (row.kind, row.attempts) for key, row in failures.items()} == {
        "v1": ("poison", 3),
        "v3": ("poison", 3),
    }
    assert run(Behave(root)).settled == 0


def test_a_bug_is_kept_with_its_traceback_and_many_stop_the_run(root: Root) -> None:
    add(root, ["bug", "fine"])
    run(Behave(root))
    failure = newest_failures(root, "behave")["v0"]
    assert (failure.kind, failure.reason) == ("bug", "ZeroDivisionError")
    assert "made for this test" in failure.message
    assert "Traceback" in failure.message
    add(root, ["bug"] * 30, first=100)
    with pytest.raises(TooManyBugs, match="made for this test"):
        run(Behave(root))
    assert len(newest_failures(root, "behave")) >= 10


def test_a_full_disk_stops_the_run_and_blames_no_row(root: Root) -> None:
    add(root, ["full"])
    with pytest.raises(NoSpace):
        run(Behave(root))
    assert newest_failures(root, "behave") == {}


def test_a_missing_model_stops_the_run_with_its_own_error(root: Root) -> None:
    add(root, ["fine"])
    with pytest.raises(ModelNotFound, match="looked here and there"):
        run(NoModel(root))
