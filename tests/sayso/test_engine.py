"""The engine: nothing lost, nothing doubled, neighbours unharmed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from sayso.engine import Engine, EngineSettings, Progress
from sayso.engine.failures import newest_failures
from sayso.errors import ModelNotFound, NoSpace, Permanent, Retry, Skip, StorageError, TooManyBugs
from sayso.root import Root
from sayso.rows import Failure, Media, SourceFacts, Video
from sayso.stage import Stage

SETTINGS = EngineSettings(
    workers=2,
    backoff=0.05,
    backoff_by_class={"no_space": 0.05, "storage": 0.05},
    commit_seconds=0.2,
    worker_memory_gib=1,
)
_MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for all tests of this file."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


_LEAKED: list[bytes] = []


class Behave(Stage[Video, Media]):
    """Does to each row what its title says."""

    name = "behave"
    reads = Video
    writes = Media

    def time_limit(self, row: Video) -> float:
        return 2.0

    def video_seconds(self, row: Video, made: Sequence[Media]) -> float:
        return 10.0

    def __call__(self, row: Video) -> Sequence[Media]:  # noqa: C901  # a list of misdeeds
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
            case "segfault":
                ctypes.string_at(0)
            case "hang":
                time.sleep(60)
            case "hang in C":
                ctypes.PyDLL(None).sleep(60)  # a call that keeps the interpreter's lock
            case "eat":
                self._eaten = bytearray(2000 * _MIB)
            case "leak":
                _LEAKED.append(b"x" * (100 * _MIB))
            case "exit":
                sys.exit(3)
            case "bug":
                raise ZeroDivisionError("made for this test")
            case "full":
                raise OSError(28, "No space left on device")
            case "no answer":
                raise StorageError("s3://x does not answer")
        with open(f"{self.root.url}/{row.video_id}.pids", "a") as file:  # noqa: PTH123
            print(os.getpid(), file=file)
        return [media(row.video_id)]


class Mended(Behave):
    """The same stage after somebody made space."""

    def __call__(self, row: Video) -> Sequence[Media]:
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


def run(stage: Behave, **settings: Any) -> Progress:
    with Engine(stage.root, SETTINGS.model_copy(update=settings)) as engine:
        (progress,) = engine.run([stage])
        return progress


def failed(root: Root) -> dict[str, tuple[str, str, int]]:
    """Kind, class and attempts of the newest failure of each row that is not done."""
    rows = newest_failures(root, "behave").to_pylist()
    done = made(root)
    return {row["id"]: (row["kind"], row["reason"], row["attempts"]) for row in rows if row["id"] not in done}


def processes(root: Root) -> list[int]:
    """The process that did each row that was done, by the row's number."""
    files = sorted(Path(root.url).glob("*.pids"), key=lambda path: int(path.stem[1:]))
    return [int(path.read_text().split()[0]) for path in files]


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
    assert failed(root) == {"v1": ("retry", "http_503", 3)}
    again = run(Behave(root))
    assert again.settled == 3


def test_deadly_rows_are_quarantined_and_their_neighbours_unharmed(root: Root) -> None:
    deadly = {
        "die": "worker_died", "segfault": "worker_died", "exit": "worker_died", "hang": "timeout",
        "hang in C": "timeout", "eat": "out_of_memory",
    }  # fmt: skip
    add(root, ["fine", *deadly, *["fine"] * 8])
    tally = run(Behave(root)).tally
    assert tally.done == 9
    assert dict(tally.failed) == {"worker_died": 3, "timeout": 2, "out_of_memory": 1}
    assert failed(root) == {f"v{i}": ("poison", reason, 3) for i, reason in enumerate(deadly.values(), 1)}
    assert run(Behave(root)).settled == 0


def test_a_deadly_row_among_quick_ones_harms_none_of_its_batch(root: Root) -> None:
    add(root, [*["fine"] * 200, "segfault", *["fine"] * 200])
    tally = run(Behave(root)).tally
    assert (tally.done, dict(tally.failed)) == (400, {"worker_died": 1})
    rows = root.table(Failure).rows(stage="behave")
    assert {row.id for row in rows} == {"v200"}, "a neighbour was counted as tried"


def test_a_worker_that_grows_is_replaced_before_a_row_fails(root: Root) -> None:
    add(root, ["leak"] * 24)
    tally = run(Behave(root)).tally
    assert (tally.done, dict(tally.failed)) == (24, {})
    used = processes(root)
    assert max(used.count(pid) for pid in set(used)) <= 10, "a worker holds more leaks of 100 MiB than its cap"


def test_a_worker_is_replaced_after_so_many_rows(root: Root) -> None:
    add(root, ["fine"] * 40)
    run(Behave(root), worker_rows=10, batch_seconds=1e-9)
    used = processes(root)
    assert len(used) == 40
    assert max(used.count(pid) for pid in set(used)) <= 10


def test_a_bug_is_kept_with_its_traceback_and_many_stop_the_run(root: Root) -> None:
    add(root, ["bug", "fine"])
    run(Behave(root))
    (failure,) = newest_failures(root, "behave", messages=True).to_pylist()
    assert (failure["id"], failure["kind"], failure["reason"]) == ("v0", "bug", "ZeroDivisionError")
    assert "made for this test" in failure["message"]
    assert "Traceback" in failure["message"]
    add(root, ["bug"] * 30, first=100)
    with pytest.raises(TooManyBugs, match="made for this test"):
        run(Behave(root))
    assert len(failed(root)) >= 10


@pytest.mark.parametrize(
    ("title", "reason", "error"), [("full", "no_space", NoSpace), ("no answer", "storage", StorageError)]
)
def test_rows_wait_for_space_and_storage_and_many_stop_the_run(
    title: str, reason: str, error: type[Exception], root: Root
) -> None:
    add(root, [title, "fine"])
    assert dict(run(Behave(root)).tally.failed) == {reason: 1}
    assert failed(root) == {"v0": ("retry", reason, 3)}
    add(root, [title] * 12, first=100)
    with pytest.raises(error):
        run(Behave(root))
    assert dict(run(Mended(root)).tally.failed) == {}
    assert len(made(root)) == 14


def test_a_missing_model_stops_the_run_with_its_own_error(root: Root) -> None:
    add(root, ["fine"])
    with pytest.raises(ModelNotFound, match="looked here and there"):
        run(NoModel(root))
