"""How long a run over 1.2 million done videos takes to begin with the 1,000 that are pending, and what memory it takes.

    python -m benchmarks.resume [--done 1200000] [--pending 1000] [--folder DIR]

The root is made first (benchmarks/large_root.py). Then a driver starts as `sayso run` does, with the stages fetch,
transcribe, captions and align, of which fetch only notes when it is called. The clock starts before the engine is
made and stops at the first call of a row in a worker; Ray's start is in it. Planning shards, which begins after all of
that, is not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.align import Align
from align.captions import Captions
from benchmarks.large_root import large_root
from ingest.fetch import Fetch, FetchSettings
from ingest.transcribe import Transcribe, TranscribeSettings
from sayso.engine import Engine, EngineSettings
from sayso.errors import Skip
from sayso.root import Root
from sayso.rows import Media, Video
from sayso.stage import Stage


class Noted(Fetch):
    """Notes when the first row was worked on."""

    def open(self) -> None:
        """Nothing to open."""

    def __call__(self, row: Video) -> Sequence[Media]:
        """Note the time, once, and drop the row."""
        mark = Path(self.root.url) / "first"
        if not mark.exists():
            mark.write_text(str(time.time()))
        raise Skip("benchmark")


def drive(url: str, answer: str) -> None:
    """Run the stages and write down what it took."""
    root = Root(url).open()
    began = time.time()
    stages: list[Stage[Any, Any]] = [
        Noted(root, FetchSettings()),
        Transcribe(root, TranscribeSettings()),
        Captions(root),
        Align(root),
    ]
    with Engine(root, EngineSettings()) as engine:
        progress = engine.run(stages)
    first = float((Path(url) / "first").read_text()) - began
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = {each.stage: [each.tally.total, each.tally.done, each.settled] for each in progress}
    Path(answer).write_text(json.dumps({"first": first, "all": time.time() - began, "peak": peak_mib, "rows": counts}))


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--done", type=int, default=1_200_000)
    parser.add_argument("--pending", type=int, default=1_000)
    parser.add_argument("--folder", help="where the root is made; a temporary folder if not given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        large_root(f"{folder}/root", asked.done, asked.pending)
        answer = Path(folder) / "answer.json"
        call = "import sys; from benchmarks.resume import drive; drive(*sys.argv[1:])"
        # A process of its own, whose peak of memory is not that of making the root. Workers find this module too.
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, "-c", call, f"{folder}/root", str(answer)], env=environment, check=True)
        found = json.loads(answer.read_text())
    print(f"{asked.done} done, {asked.pending} pending: total, done, worked on of each stage: {found['rows']}")
    print(f"first row worked on after {found['first']:.2f} s (at most 5 asked); all after {found['all']:.2f} s")
    print(f"peak memory of the driver {found['peak']:.0f} MiB (at most 1 GB asked)")


if __name__ == "__main__":
    main()
