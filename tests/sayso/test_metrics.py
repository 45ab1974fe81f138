"""What Prometheus reads of a run."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from sayso.engine import Progress
from sayso.engine.inputs import Tally
from sayso.engine.metrics import Metrics

Samples = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port at which a Ray of this file's own serves its metrics."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20,
        _metrics_export_port=number, _system_config={"metrics_report_interval_ms": 500},
    )  # fmt: skip
    yield number
    ray.shutdown()


def scraped(port: int, run: str, enough: Callable[[Samples], bool]) -> Samples:
    """The samples of a run by name and other tags, as soon as they are enough."""
    deadline = time.monotonic() + 60
    samples: Samples = {}
    while time.monotonic() < deadline:
        samples = _scrape(port, run)
        if enough(samples):
            return samples
        time.sleep(0.2)
    raise AssertionError(f"not enough after a minute: {samples}")


def _scrape(port: int, run: str) -> Samples:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:  # the agent is not there yet
        return {}
    return {
        (sample.name, *(sample.labels[tag] for tag in ("stage", "outcome", "class") if sample.labels.get(tag))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("run") == run
    }


def begun(done: int = 50) -> Progress:
    """A stage that an earlier run left."""
    tally = Tally(total=100, done=done)
    tally.count("skip", "no_captions", by=10)
    tally.count("permanent", "http_404", by=2)
    return Progress("fetch", tally)


def test_what_is_published_is_served_for_prometheus(port: int) -> None:
    metrics, progress = Metrics("one"), begun()
    metrics.publish(progress)
    progress.tally.done += 3
    progress.tally.count("skip", "no_captions", by=2)
    progress.tally.count("retry", "http_429", by=4)
    progress.settled, progress.queued, progress.in_flight, progress.workers = 9, 7, 3, 2
    progress.video_seconds, progress.stored_bytes = 12.5, 1000
    progress.started -= 18.0
    metrics.publish(progress)
    # One of the four went through, another failed again, in another way.
    progress.tally.done += 1
    progress.tally.count("retry", "http_429", by=-2)
    progress.tally.count("permanent", "http_410")
    progress.settled += 2
    metrics.publish(progress)
    found = scraped(port, "one", lambda samples: samples.get(("ray_sayso_rows_total", "fetch", "failed")) == 5)
    assert found.pop(("ray_sayso_rows_per_second", "fetch")) == pytest.approx(0.5, rel=0.05)
    assert found == {
        ("ray_sayso_rows_total", "fetch", "done"): 4,
        ("ray_sayso_rows_total", "fetch", "dropped"): 2,
        ("ray_sayso_rows_total", "fetch", "failed"): 5,
        ("ray_sayso_failures_total", "fetch", "http_429"): 4,
        ("ray_sayso_failures_total", "fetch", "http_410"): 1,
        ("ray_sayso_failed", "fetch", "http_429"): 2,
        ("ray_sayso_failed", "fetch", "http_410"): 1,
        ("ray_sayso_failed", "fetch", "http_404"): 2,
        ("ray_sayso_video_seconds_total", "fetch"): 12.5,
        ("ray_sayso_bytes_total", "fetch"): 1000,
        ("ray_sayso_inputs", "fetch"): 100,
        ("ray_sayso_done", "fetch"): 54,
        ("ray_sayso_pending", "fetch"): 29,
        ("ray_sayso_in_flight", "fetch"): 3,
        ("ray_sayso_queued", "fetch"): 7,
        ("ray_sayso_workers", "fetch"): 2,
    }


def test_a_stage_first_seen_in_the_middle_does_not_count_what_was_there(port: int) -> None:
    metrics, progress = Metrics("two"), begun(done=60)
    progress.settled = 10
    metrics.publish(progress)
    progress.tally.done += 1
    progress.settled += 1
    metrics.publish(progress)
    found = scraped(port, "two", lambda samples: ("ray_sayso_rows_total", "fetch", "done") in samples)
    totals = {key: value for key, value in found.items() if key[0].endswith("_total")}
    assert totals == {("ray_sayso_rows_total", "fetch", "done"): 1}


def test_publishing_takes_less_than_a_millisecond(port: int) -> None:
    metrics, progress = Metrics("three"), begun()
    metrics.publish(progress)
    seconds = []
    for number in range(1, 201):
        progress.settled = number
        progress.tally.count("retry", "http_429")
        began = time.perf_counter()
        metrics.publish(progress)
        seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[len(seconds) // 2] < 1e-3


def test_without_ray_nothing_is_published_and_ray_is_not_even_loaded() -> None:
    program = """
import sys
from sayso.engine.inputs import Tally
from sayso.engine.lane import Progress
from sayso.engine.metrics import Metrics
progress = Progress("fetch", Tally(total=1))
Metrics("run").publish(progress)
assert "ray" not in sys.modules
import ray
Metrics("run").publish(progress)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
