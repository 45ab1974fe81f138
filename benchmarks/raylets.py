"""What a second node is worth: the same rows on one raylet with one CPU and on two, in one run.

    python -m benchmarks.raylets [--rows 400] [--ms 50]

Rows keep a core busy. Raylets are real ones on this machine, joined by a driver as any cluster is; workers are up
before the clock starts (a warm-up of a few rows), as they are in a run of weeks.
"""

from __future__ import annotations

import argparse
import tempfile

import ray

from benchmarks.engine_overhead import Quick, add_videos, timed_run
from sayso.engine import EngineSettings
from sayso.root import Root
from tests.cluster import RayCluster


def seconds_on(nodes: int, rows: int, seconds: float) -> float:
    """Wall seconds for the rows on so many raylets of one CPU, the start of workers taken off."""
    with RayCluster([{"CPU": 1}] * nodes) as cluster, cluster.joined(), tempfile.TemporaryDirectory() as folder:
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            settings = EngineSettings(address=cluster.address)
            took = []
            for number in (2 * nodes, rows):
                root = Root(f"{folder}/{number}").create()
                add_videos(root, number)
                took.append(timed_run(root, Quick(root, seconds, spin=True), settings)[0])
            return took[1] - (took[0] - 2 * seconds)
        finally:
            ray.shutdown()


def main() -> None:
    """Run it and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--ms", type=float, default=50.0)
    asked = parser.parse_args()
    one = seconds_on(1, asked.rows, asked.ms / 1000)
    two = seconds_on(2, asked.rows, asked.ms / 1000)
    print(f"{asked.rows} rows of {asked.ms:g} ms: one raylet {one:.2f} s, two raylets {two:.2f} s: {one / two:.2f} x")


if __name__ == "__main__":
    main()
