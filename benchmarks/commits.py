"""What a table costs that grows by many small commits, with and without compaction, and what its keys cost.

    python benchmarks/commits.py                 (about 10 minutes; --commits and --rows make it shorter)

(a) A Writer appends one row a commit; beside it the same rows are appended without compaction, as many as patience
allows. A fresh process that opens a table should wait less than 0.2 s for it.
(b) Keys of a large table, found by the engine, beside the same through pydantic rows. Each is measured in a process of
its own, so that the memory is its own too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, write_deltalake

from sayso.arrow import to_arrow
from sayso.root import Root
from sayso.rows import Video
from sayso.tables import Table

_STAGE = "discover"
_CHUNK = 100_000


def records(start: int, count: int) -> list[dict[str, Any]]:
    """Rows of videos with ids like those of real sites."""
    return [
        {
            **Video(video_id=f"youtube:{number:011}", url=f"https://example.org/watch?v={number:011}").model_dump(),
            "made_by": _STAGE,
            "made_from": f"list:{number // 2}",
        }
        for number in range(start, start + count)
    ]


def commit_compacted(table: Table[Video], commits: int) -> float:
    """Seconds of commits through a Writer, compaction among them."""
    writer = table.writer(_STAGE)
    for number in range(commits):
        writer.append(records(number, 1))
    return writer.seconds


def commit_plainly(table: Table[Video], commits: int) -> float:
    """Seconds of commits as they are made without a Writer."""
    began = time.monotonic()
    for number in range(commits):
        write_deltalake(table.url, to_arrow(Video, records(number, 1)), mode="append")
    return time.monotonic() - began


def opened(table: Table[Video]) -> int:
    """Open the table; its version."""
    return DeltaTable(table.url).version()


def rows_through_python(table: Table[Video]) -> int:
    """The keys as they come without the engine's help: every row is made, one key is kept."""
    return len({row.video_id for row in table.rows()})


MEASURES: dict[str, Callable[[Table[Video]], int]] = {
    "open": opened,
    "read": lambda table: table.read().num_rows,
    "keys": lambda table: len(table.keys()),
    "made_from": lambda table: len(table.made_from(_STAGE)),
    "rows": rows_through_python,
    "nothing": lambda table: 0,
}


def measure(root: Path, what: str) -> dict[str, float]:
    """Seconds and peak memory of one look at the table, in a fresh process."""
    command = [sys.executable, __file__, "--measure", what, "--folder", str(root)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def print_measure(root: Path, what: str) -> None:
    """What `measure` reads."""
    table = Root(str(root)).table(Video)
    began = time.monotonic()
    count = MEASURES[what](table)
    seconds = time.monotonic() - began
    # Not ru_maxrss, which holds the memory of the process that started this one.
    peak_kb = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    peak_mb = int(peak_kb.split()[1]) / 1024
    print(json.dumps({"count": count, "seconds": seconds, "peak_mb": peak_mb}))


def compare_commits(folder: Path, commits: int, plain_commits: int) -> None:
    """Print (a)."""
    print(f"(a) {commits} commits of one row through a Writer; {plain_commits} without compaction")
    figures = {}
    for name, count, commit in (("Writer", commits, commit_compacted), ("plain", plain_commits, commit_plainly)):
        root = Root(str(folder / name)).create()
        commit_ms = 1000 * commit(root.table(Video), count) / count
        open_s, read_s = (measure(folder / name, what)["seconds"] for what in ("open", "read"))
        files = len(DeltaTable(root.table(Video).url).file_uris())
        figures[name] = (commit_ms, open_s, read_s)
        print(f"  {name:7} {commit_ms:7.1f} ms a commit   open {open_s:6.3f} s   read {read_s:6.3f} s   {files} files")
    ratios = [plain / compacted for plain, compacted in zip(figures["plain"], figures["Writer"], strict=True)]
    print("  plain / Writer: commit {:.1f}, open {:.1f}, read {:.1f}".format(*ratios))
    print(f"  opened within 0.2 s: {'yes' if figures['Writer'][1] < 0.2 else 'NO'}", flush=True)


def compare_keys(folder: Path, rows: int) -> None:
    """Print (b)."""
    table = Root(str(folder / "large")).create().table(Video)
    for start in range(0, rows, _CHUNK):
        table.append(records(start, min(_CHUNK, rows - start)))
    print(f"(b) {rows} rows")
    base_mb = measure(folder / "large", "nothing")["peak_mb"]
    figures = {what: measure(folder / "large", what) for what in ("keys", "made_from", "rows")}
    for what, found in figures.items():
        peak = f"peak {found['peak_mb']:.0f} MB, {found['peak_mb'] - base_mb:.0f} of them beside Python and its modules"
        print(f"  {what:9} {found['count']:8.0f} keys   {found['seconds']:6.2f} s   {peak}")
    print(f"  rows / keys: {figures['rows']['seconds'] / figures['keys']['seconds']:.0f} times the seconds")


def main() -> None:
    """Print (a) and (b)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--plain-commits", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print_measure(asked.folder, asked.measure)
        return
    with tempfile.TemporaryDirectory(prefix="sayso-") as folder:
        compare_commits(Path(folder), asked.commits, asked.plain_commits)
        compare_keys(Path(folder), asked.rows)


if __name__ == "__main__":
    main()
