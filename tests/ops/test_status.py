"""Where a data set stands, from its tables."""

from __future__ import annotations

from typing import Any

from ops.status import status
from sayso.root import Root
from sayso.rows import Narration, Run
from tests.made import Copy, Other, failure, put, video


def figures(run_id: str, stage: str, elapsed: float, video_seconds: float, **more: Any) -> Run:
    fields = {
        "total": 0, "done": 0, "failed": 0, "in_flight": 0, "rows_per_second": 0, "video_seconds_per_second": 0,
        "bytes_per_second": 0, **more,
    }  # fmt: skip
    return Run.model_validate(
        {"run_id": run_id, "stage": stage, "elapsed": elapsed, "video_seconds": video_seconds, **fields}
    )


def narration(number: int, kept: bool, reason: str = "") -> Narration:
    return Narration(
        narration_id=f"n{number}", video_id="a", start=0, end=1, text="stir", source="asr:x", language="en", kept=kept,
        reason=reason,
    )  # fmt: skip


def test_a_root_without_tables_has_nothing(root: Root) -> None:
    found = status(root, [Copy(root)])
    assert [(stage.name, stage.total, stage.pending, stage.seconds) for stage in found.stages] == [
        ("discover", 0, 0, 0.0),
        ("copy", 0, 0, 0.0),
    ]
    assert (found.narrations.kept, found.narrations.dropped) == (0, {})


def test_inputs_are_counted_a_stage(root: Root) -> None:
    put(root, [video(key) for key in "abcd"], "discover")
    put(root, [failure("a", "skip", "no_speech"), failure("b"), failure("c", stage="other")], "copy")
    put(root, [failure("feed", stage="discover")], "discover")
    discover, copy, other = status(root, [Copy(root), Other(root)]).stages
    assert (discover.total, discover.done, discover.failed) == (5, 4, {"http_429": 1})
    assert (copy.total, copy.done, copy.pending) == (4, 0, 2)
    assert (copy.skipped, copy.failed) == ({"no_speech": 1}, {"http_429": 1})
    assert (other.pending, other.skipped, other.failed) == (3, {}, {"http_429": 1})


def test_time_is_the_last_of_each_run_added_up(root: Root) -> None:
    put(root, [figures("1", "copy", 5.0, 50.0), figures("1", "copy", 10.0, 90.0), figures("1", "other", 7.0, 0.0)], "e")
    put(root, [figures("2", "copy", 2.0, 30.0)], "e")
    _, copy, other = status(root, [Copy(root), Other(root)]).stages
    assert (copy.seconds, copy.video_seconds, copy.x_realtime) == (12.0, 120.0, 10.0)
    assert (other.seconds, other.video_seconds, other.x_realtime) == (7.0, 0.0, None)


def test_narrations_are_counted_by_what_became_of_them(root: Root) -> None:
    kept = [narration(number, True) for number in range(3)]
    dropped = [narration(3, False, "too_short"), narration(4, False, "too_short"), narration(5, False, "junk")]
    put(root, [*kept, *dropped], "align")
    found = status(root, []).narrations
    assert (found.kept, found.dropped) == (3, {"too_short": 2, "junk": 1})
