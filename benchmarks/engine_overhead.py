"""What the engine adds to quick rows: a stage of 20,000 rows of 5 ms each on 2 workers, against rows * 5 ms / 2.

    python -m benchmarks.engine_overhead [--rows 20000] [--ms 5] [--workers 2] [--wait sleep|spin]

Rows sleep by default, so that workers and driver do not compete where there are only two cores; `--wait spin` keeps a
core busy a row. Ray is up before the clock starts; looking up what is pending, worker processes, commits and figures
are in the time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import ray

from sayso.engine import Engine, EngineSettings, Progress
from sayso.root import Root
from sayso.rows import Media, Row, SourceFacts, Video
from sayso.stage import Stage


class Quick(Stage[Video, Media]):
    """Takes a fixed time for each row."""

    name: ClassVar[str] = "quick"
    reads: ClassVar[type[Row]] = Video
    writes: ClassVar[type[Row]] = Media

    def __init__(self, root: Root, seconds: float, spin: bool) -> None:
        super().__init__(root)
        self._seconds = seconds
        self._spin = spin

    def __call__(self, row: Video) -> Sequence[Media]:
        """Sleep or spin, and make a small row."""
        if self._spin:
            until = time.perf_counter() + self._seconds
            while time.perf_counter() < until:
                pass
        else:
            time.sleep(self._seconds)
        facts = SourceFacts(sha256="", bytes=0, container="mp4", duration=10.0)
        key = f"media/{row.video_id}"
        return [
            Media(
                video_id=row.video_id, key=key, sha256="", bytes=7, duration=10.0, width=1, height=1, fps=10.0,
                audio=True, source=facts,
            )
        ]  # fmt: skip


def add_videos(root: Root, number: int) -> None:
    """Append so many videos."""
    marks = {"made_by": "benchmark", "made_from": ""}
    rows: list[dict[str, Any]] = [Video(video_id=f"v{i:07d}", url=f"http://x/{i}").model_dump() for i in range(number)]
    root.table(Video).append([{**row, **marks} for row in rows])


def timed_run(root: Root, stage: Stage[Any, Any], settings: EngineSettings) -> tuple[float, Progress]:
    """Wall seconds of a run of one stage."""
    with Engine(root, settings) as engine:
        began = time.perf_counter()
        (progress,) = engine.run([stage])
        return time.perf_counter() - began, progress


def main() -> None:
    """Run it and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--ms", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wait", choices=["sleep", "spin"], default="sleep")
    asked = parser.parse_args()
    ray.init(num_cpus=asked.workers, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    with tempfile.TemporaryDirectory() as folder:
        root = Root(folder).create()
        add_videos(root, asked.rows)
        stage = Quick(root, asked.ms / 1000, asked.wait == "spin")
        took, progress = timed_run(root, stage, EngineSettings())
        assert progress.tally.done == asked.rows
    ideal = asked.rows * asked.ms / 1000 / asked.workers
    print(f"{asked.rows} rows of {asked.ms:g} ms ({asked.wait}) on {asked.workers} workers")
    print(f"took {took:.2f} s, rows * time / workers = {ideal:.2f} s: {took / ideal:.3f} x")
    ray.shutdown()


if __name__ == "__main__":
    main()
