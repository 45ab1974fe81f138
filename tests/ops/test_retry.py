"""Asking for failures to be tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import ray

from ops import show
from ops.retry import Asked, retry, show_asked
from sayso.engine import Engine, EngineSettings
from sayso.engine.inputs import open_failures, stage_tally
from sayso.errors import InputError, Permanent, Retry
from sayso.root import Root
from sayso.rows import Shard, Video, now
from sayso.stage import Stage
from tests.made import Copy, Other, failure, put, video


@pytest.fixture
def failed(root: Root) -> Root:
    """A root where one row of each kind of failure is in stage `copy`, and one in stage `other`."""
    put(root, [video(key) for key in "abcdef"], "discover")
    rows = [
        failure("a", "skip", "no_speech"),
        failure("b", "permanent", "http_404"),
        failure("c", "poison", "killed"),
        failure("d", "retry", not_before=now() + timedelta(hours=1)),
        failure("e", "bug", "KeyError"),
        failure("f", "permanent", stage="other"),
    ]
    put(root, rows, "copy")
    return root


def left(root: Root, stage: Stage[Video, Video]) -> str:
    return "".join(sorted(open_failures(root, stage)["id"].to_pylist()))


def test_everything_but_what_was_dropped_is_asked_again(failed: Root) -> None:
    asked = retry(failed, [Copy(failed), Other(failed)])
    assert Counter(each.stage for each in asked) == Counter(copy=4, other=1)
    assert Asked(stage="other", kind="permanent", reason="http_429", rows=1) in asked
    assert (left(failed, Copy(failed)), left(failed, Other(failed))) == ("a", "")
    assert stage_tally(failed, Copy(failed)).pending == 5
    assert retry(failed, [Copy(failed), Other(failed)]) == []


@pytest.mark.parametrize(
    ("named", "rest"),
    [
        ({"reasons": ["no_speech"]}, "bcde"),
        ({"kinds": ["skip", "bug"]}, "bcd"),
        ({"ids": ["a", "d"]}, "bce"),
        ({"kinds": ["permanent"], "ids": ["a", "b"]}, "acde"),
        ({"only": "other"}, "abcde"),
    ],
)
def test_only_what_is_named_is_asked_again(failed: Root, named: dict[str, list[str]], rest: str) -> None:
    retry(failed, [Copy(failed), Other(failed)], **named)  # type: ignore[arg-type]  # mypy takes all values for `only`
    assert left(failed, Copy(failed)) == rest


def test_a_dry_run_changes_nothing(failed: Root) -> None:
    assert len(retry(failed, [Copy(failed)], dry_run=True)) == 4
    assert left(failed, Copy(failed)) == "abcde"


def test_what_is_not_there_is_said_with_what_is(failed: Root) -> None:
    stages = [Copy(failed), Other(failed)]
    with pytest.raises(InputError, match=r"--stage fetch: no such stage \(there are copy, other\)"):
        retry(failed, stages, "fetch")
    with pytest.raises(InputError, match=r"--class http_403: no row has it \(there are KeyError, http_404, http_429"):
        retry(failed, stages, reasons=["http_403"])
    with pytest.raises(InputError, match="--id f: nothing failed under this id in copy"):
        retry(failed, stages, "copy", ids=["a", "f"])
    assert left(failed, Copy(failed)) == "abcde"


def test_people_read_how_many_rows_of_what(failed: Root) -> None:
    with show.out.capture() as captured:
        show_asked(retry(failed, [Copy(failed)], reasons=["http_404"]), dry_run=False)
        show_asked(retry(failed, [Copy(failed)], reasons=["killed"], dry_run=True), dry_run=True)
        show_asked([], dry_run=False)
    assert captured.get().splitlines() == [
        "copy: 1 of http_404 (permanent)",
        "1 pending again: the next `sayso run` tries them",
        "copy: 1 of killed (poison)",
        "1 would be pending again",
        "nothing to try again",
    ]


@pytest.fixture
def cluster() -> Iterator[None]:
    """A Ray to join."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


class Mended(Stage[Video, Shard]):
    """Refuses every row until its fault is mended."""

    name = "mended"
    reads = Video
    writes = Shard

    def __call__(self, row: Video) -> Sequence[Shard]:
        if not Path(self.root.url, "mended").exists():
            raise Permanent("http_404") if row.video_id == "a" else Retry("http_429", after=3600)
        return [
            Shard(
                export="x", shard=row.video_id, split="train", version=0, key="", sha256="", bytes=0, index_key="",
                index_sha256="", index_bytes=0, samples=0, seconds=0, video_ids=[],
            )
        ]  # fmt: skip


@pytest.mark.usefixtures("cluster")
def test_the_next_run_tries_what_was_asked_again(root: Root) -> None:
    put(root, [video("a"), video("b")], "discover")
    stage = Mended(root)

    def run() -> int:
        with Engine(root, EngineSettings(workers=1, backoff=0.01)) as engine:
            return engine.run([stage])[0].tally.done

    assert run() == 0
    Path(root.url, "mended").touch()
    assert run() == 0
    retry(root, [stage])
    assert run() == 2
    assert stage_tally(root, stage).failed == Counter()
