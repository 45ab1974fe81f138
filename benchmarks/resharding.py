"""What it costs to make shards anew from proxies that are there: seconds of video in the windows a CPU second.

    python -m benchmarks.resharding [--videos 6] [--minutes 10] [--media ../shared/media]

A root in a local folder holds so many videos, each a proxy of ten minutes of talk, with a narration every 4 s. Three
exports are made of it one after the other with the stage that `sayso shard` runs, in this process: around each
narration 5 s; 12 s, which overlap; and long windows of 64 s. Planning, hashing the proxies, cutting, the tar and its
index, reading it back, opening each clip, and publishing are in the time. Nothing is encoded, so that windows that
overlap cost what their bytes cost. Real time a core is 1 x.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.talk import MEDIA, cpu_seconds, fill_root, make_proxy, make_shards, make_talk
from ingest.ffmpeg import find_ffmpeg
from ingest.normalise import NormaliseSettings
from sayso.root import Root
from shards.settings import ShardSettings

ASKED = 500
EXPORTS = {
    "5 s around each narration": ShardSettings(export="short", samples_per_shard=300),
    "12 s around each narration": ShardSettings(export="overlapping", min_window=12, samples_per_shard=300),
    "64 s, one after the other": ShardSettings(export="long", windows="context", samples_per_shard=300),
}


def measure(root: Root, name: str, settings: ShardSettings, source_seconds: float) -> float:
    """Make an export and print what it took; seconds in the windows a CPU second."""
    began = cpu_seconds()
    plans, shards = make_shards(root, settings)
    took = cpu_seconds() - began
    samples = sum(len(plan.samples) for plan in plans)
    windows = sum(sample.end - sample.start for plan in plans for sample in plan.samples)
    size = sum(shard.bytes for shard in shards) / 1e6
    print(
        f"  {name:27} {samples:5} clips in {len(shards)} shards, {size:6.1f} MB   {took:5.2f} CPU-s, "
        f"{1000 * took / samples:4.1f} ms a clip   {windows / took:5.0f} x in the windows, "
        f"{source_seconds / took:5.0f} x of the source",
        flush=True,
    )
    return windows / took


def main() -> None:
    """Run it and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--media", type=Path, default=MEDIA)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sayso-") as name:
        folder, ffmpeg = Path(name), find_ffmpeg()
        told = make_talk(folder / "talk.mp4", 60 * asked.minutes, asked.media, ffmpeg)
        proxy = make_proxy(folder / "talk.mp4", folder / "work", NormaliseSettings(), ffmpeg)
        root = Root(str(folder / "root")).create()
        fill_root(root, proxy, asked.videos, every=4.0)
        source_seconds = proxy.duration * asked.videos
        print(f"{asked.videos} videos of {asked.minutes:g} minutes ({told}), {source_seconds:.0f} s")
        ratios = [measure(root, export, settings, source_seconds) for export, settings in EXPORTS.items()]
    print(f"least: {min(ratios):.0f} x real time a core (at least {ASKED} asked)")


if __name__ == "__main__":
    main()
