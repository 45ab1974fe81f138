"""A run as it goes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.watch import Watcher, recent_figures, speeds, stage_now
from sayso.engine.inputs import Tally
from sayso.root import Root
from sayso.rows import ClassCount, Run, now
from tests.conftest import SAYSO
from tests.made import Copy, Other, failure, put, video


def figures(elapsed: float = 10.0, *, settled: float = 20.0, age: float = 1.0, **more: Any) -> Run:
    """What a run wrote `age` seconds ago, when it had settled so many rows."""
    fields = {
        "run_id": "1", "stage": "copy", "time": now() - timedelta(seconds=age), "elapsed": elapsed, "total": 100,
        "done": 20, "failed": 3, "in_flight": 2, "rows_per_second": settled / elapsed, "video_seconds": 10.0 * settled,
        "video_seconds_per_second": 0.0, "bytes_per_second": 0.0, "queued": 40, "workers": 4,
        "failed_by_class": [ClassCount(reason="http_429", count=3)], **more,
    }  # fmt: skip
    return Run.model_validate(fields)


def test_speed_is_that_of_the_last_minute() -> None:
    long_ago, before, last = figures(1000, settled=9000), figures(1035, settled=9070), figures(1100, settled=9200)
    assert speeds([long_ago, before, last]) == pytest.approx((2.0, 20.0))
    assert speeds([before, figures(1095, settled=9190), last]) == pytest.approx((2.0, 20.0))


def test_speed_of_a_young_stage_is_that_since_it_began() -> None:
    assert speeds([figures(5, settled=1), figures(10, settled=20)]) == pytest.approx((2.0, 20.0))
    assert speeds([figures(500, settled=1000)]) == pytest.approx((2.0, 20.0))


def test_time_left_is_what_is_pending_at_this_speed() -> None:
    tally = Tally(total=90, done=5, skipped=Counter(no_speech=7))
    known = stage_now("copy", tally, [figures()])
    assert (known.total, known.done, known.pending, known.seconds_left) == (100, 20, 70, 35.0)
    assert (known.failed, known.skipped) == ({"http_429": 3}, {"no_speech": 7})
    assert stage_now("copy", tally, [figures(settled=0)]).seconds_left is None
    assert stage_now("copy", Tally(), [figures(total=23, settled=0)]).seconds_left == 0.0


def test_without_a_run_only_the_tables_are_known() -> None:
    known = stage_now("copy", Tally(total=9, done=5), None)
    assert (known.total, known.done, known.pending) == (9, 5, 4)
    assert (known.run_id, known.queued, known.workers, known.seconds_left) == (None, None, None, None)


@pytest.mark.parametrize(
    ("written", "alive"),
    [
        ([{"age": 1}], True),
        ([{"age": 20}], True),
        ([{"age": 40}], False),
        ([{"age": 40}, {"age": 20}, {"age": 1, "finished": True}], False),
        # Where writing takes long, a run writes more seldom.
        ([{"age": 70}, {"age": 40}], True),
        ([{"age": 150}, {"age": 110}], True),
        ([{"age": 150}, {"age": 120}], False),
        # A run that was stopped, and the next one.
        ([{"age": 20, "finished": True}, {"age": 1, "run_id": "2"}], True),
    ],
)
def test_a_run_is_alive_while_it_writes(root: Root, written: list[dict[str, Any]], alive: bool) -> None:
    put(root, [figures(**each) for each in written], "engine")
    found = recent_figures(root, now())
    assert bool(found) == alive
    if alive:
        assert {row.run_id for row in found["copy"]} == {written[-1].get("run_id", "1")}


def test_figures_of_older_versions_lack_columns(root: Root) -> None:
    row = figures(queued=None, workers=None, failed_by_class=None)
    put(root, [row], "engine")
    (found,) = recent_figures(root, now())["copy"]
    known = stage_now("copy", Tally(failed=Counter(http_404=1)), [found])
    assert (known.queued, known.failed) == (None, {"http_404": 1})


def test_a_stage_that_came_to_rest_is_counted_at_once(root: Root) -> None:
    put(root, [video(key) for key in "abc"], "discover")
    put(root, [figures(age=5), figures(age=5, stage="other", run_id="2", total=7, done=1)], "engine")
    watcher = Watcher(root, [Copy(root), Other(root)])
    first = watcher.look()
    assert first.runs == ["1", "2"]
    assert [(stage.name, stage.done, stage.total) for stage in first.stages] == [("copy", 20, 100), ("other", 1, 7)]
    put(root, [failure("a", "skip", "no_speech")], "copy")
    put(root, [figures(age=0, finished=True)], "engine")
    copy, other = watcher.look().stages
    assert (copy.total, copy.pending, copy.skipped, copy.queued) == (3, 2, {"no_speech": 1}, None)
    assert (other.total, other.queued) == (7, 40)


def test_the_tables_are_not_counted_at_every_look(root: Root) -> None:
    put(root, [figures()], "engine")
    watcher = Watcher(root, [Copy(root), Other(root)])
    watcher.look()
    put(root, [video("a")], "discover")
    assert watcher.look().stages[1].total == 0


def test_ctrl_c_is_the_usual_end_of_watching(root: Root) -> None:
    put(root, [figures(stage="fetch")], "engine")
    command = [str(SAYSO), "status", "--watch", "--every", "0.1", "--json", "--root", root.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        assert watching.stderr
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        errors = watching.stderr.read()
    assert (watching.returncode, errors) == (0, "")
    assert [line["runs"] for line in lines] == [["1"], ["1"]]
    assert [stage["queued"] for stage in lines[0]["stages"]] == [40, None, None, None, None]


def test_a_terminal_shows_one_table_that_changes(root: Root) -> None:
    put(root, [figures(stage="fetch")], "engine")
    ours, theirs = pty.openpty()
    command = [str(SAYSO), "status", "--watch", "--every", "0.1", "--root", root.url]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as watching:
        os.close(theirs)
        seen = read_until(ours, b"\x1b[1A", b"transcribe", b"http_429 3", b"running: 1")
        watching.send_signal(signal.SIGINT)
        seen += read_until(ours)
    os.close(ours)
    assert watching.returncode == 0
    assert b"Traceback" not in seen


def read_until(terminal: int, *wanted: bytes) -> bytes:
    """What a terminal shows until all that is wanted was there, or (with nothing wanted) until its end."""
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline and not (wanted and all(each in seen for each in wanted)):
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the other side is gone
            return seen
    assert wanted
    assert all(each in seen for each in wanted), seen
    return seen


def test_without_a_terminal_a_block_is_printed_each_time(root: Root, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [str(SAYSO), "status", "--watch", "--every", "0.1", "--root", root.url]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file) as watching:
        deadline = time.monotonic() + 60
        while log.read_text().count("no run is alive") < 3 and watching.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        watching.send_signal(signal.SIGINT)
    assert watching.returncode == 0
    assert log.read_text().count("no run is alive") >= 3
    assert "\x1b" not in log.read_text()
