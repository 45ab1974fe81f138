"""What people read."""

from __future__ import annotations

import pytest

from ops.show import counts, duration, stage_facts
from sayso.engine import Progress
from sayso.engine.failures import Tally


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1:00 min"), (3599, "59:59 min"), (11400, "3:10:00 h")]
)
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_most_frequent_reason_stands_first() -> None:
    assert counts({"b": 2, "c": 2, "a": 1, "d": 7}) == "d 7, b 2, c 2, a 1"
    assert counts({}) == ""


def test_a_stage_says_what_it_dropped_and_how_fast_it_is() -> None:
    tally = Tally(total=5, done=1)
    tally.skipped["no_speech"] += 2
    tally.failed["http_404"] += 1
    progress = Progress("fetch", tally, video_seconds=0.0)
    assert stage_facts(progress) == "dropped 2, failed 1"
    assert tally.pending == 1
