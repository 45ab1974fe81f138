"""What people read."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ops.show import bars, counts, duration, seconds_left, stage_facts
from sayso.engine import Progress
from sayso.engine.inputs import Tally


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


def test_a_stage_says_what_workers_have_and_what_waits_for_them() -> None:
    assert stage_facts(Progress("fetch", Tally(total=5), in_flight=2, queued=3)) == "in flight 2, queue 3"


def test_time_left_is_unknown_where_nothing_moves() -> None:
    assert seconds_left(10, 2.0) == 5.0
    assert seconds_left(10, 0.0) is None
    assert seconds_left(0, 0.0) == 0.0


def test_the_bar_forecasts_from_the_last_minute_though_the_total_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(stderr=True, force_terminal=True, width=200, file=io.StringIO())
    monkeypatch.setattr("ops.show.err", terminal)
    with bars() as shown:
        progress = Progress("fetch", Tally(total=2_000, done=1_000))
        for second in range(1, 301):
            progress.started, progress.ended = 1000.0, 1000.0 + second
            # Ten rows a second in the first minutes, two in the last.
            progress.settled = min(10 * second, 2_000) + 2 * max(0, second - 200)
            progress.tally.done = 1_000 + progress.settled
            progress.tally.total = 4_000 + second
            shown.watch(progress)
        # 4300 in all, 3200 done, 2 a second.
        facts = shown._progress.tasks[0].fields["facts"]
    assert facts == "9:10 min left"
