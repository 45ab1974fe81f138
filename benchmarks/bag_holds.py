"""How often a bag of narrations holds the one that tells what the clip shows, on planned demo worlds.

    python -m benchmarks.bag_holds --seeds 1 2 3

Nothing is drawn or trained: windows and bags are made of what the plan says is said (shards/windows.py), as an export
makes them, clips are drawn in them as mil_nce_demo draws them, and the truth says what is seen in their middle.
Compared are bags of 1, 3 and 5 at several shares of chatter; docs/ablation.md sets what models learn beside it.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator

from demo.plan import plan_videos
from demo.settings import WorldSettings
from demo.truth import VideoTruth
from shards.settings import ShardSettings
from shards.windows import nearest, widen

CLIP_SECONDS = 1.6
DRAWN = 10
"""Clips of a window."""


def clips(video: VideoTruth, settings: ShardSettings, most: int) -> Iterator[tuple[int | None, list[int | None]]]:
    """Of clips around every sentence: the step that is seen, and those that its bag tells of, the nearest first."""
    draw = random.Random(video.id)
    starts, ends = [said.start for said in video.said], [said.end for said in video.said]
    for anchor, said in enumerate(video.said):
        first, last = widen(
            said.start, said.end, least=settings.min_window, most=settings.max_window, duration=video.duration
        )
        told = [video.said[index].step for index in nearest(starts, ends, anchor, most)]
        for _ in range(DRAWN):
            middle = draw.uniform(first, max(first, last - CLIP_SECONDS)) + CLIP_SECONDS / 2
            yield next((seen.step for seen in video.seen if seen.start <= middle < seen.end), None), told


def held(world: WorldSettings, bags: list[int]) -> list[float]:
    """For each size of bag, the share of a world's clips whose bag tells of what is seen."""
    settings = ShardSettings()
    all_clips = [clip for video in plan_videos(world) for clip in clips(video, settings, max(bags))]
    return [statistics.mean(seen is not None and seen in told[:bag] for seen, told in all_clips) for bag in bags]


def main() -> None:
    """Print a row for each share of chatter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.5, 0.8])
    parser.add_argument("--bags", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--videos", type=int, default=60)
    asked = parser.parse_args()
    print("noise  " + "  ".join(f"bag of {bag:2d}" for bag in asked.bags) + "   % of clips, mean of the seeds")
    for noise in asked.noise:
        by_seed = [held(WorldSettings(seed=seed, videos=asked.videos, noise=noise), asked.bags) for seed in asked.seeds]
        means = [100 * statistics.mean(shares) for shares in zip(*by_seed, strict=True)]
        print(f"{noise:5.0%}  " + "  ".join(f"{mean:9.1f}" for mean in means))


if __name__ == "__main__":
    main()
