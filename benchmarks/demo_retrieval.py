"""Zero-shot text-to-video retrieval on the demo world, over several seeds, beside chance.

    python benchmarks/demo_retrieval.py --folder DIR --seeds 1 2 3

For each seed the whole main job runs: a world of that seed is rendered, served, found, fetched, transcribed, aligned
and sharded; mil_nce_demo is trained with that seed; the videos of the test split, which were not trained on, are the
candidates. What compares: R@5 of the model and of guessing. A folder that is finished is only read again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SAYSO = Path(sys.executable).with_name("sayso")


def measure(folder: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    """The demo's result for a seed."""
    command = [SAYSO, "demo", "--root", folder / f"seed-{seed}", "--seed", seed, "--json", f"seed={seed}", *overrides]
    ran = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def main() -> None:
    """Print a row for each seed, and the mean and spread of R@5 / chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the demos are put")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the recipe mil_nce_demo")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    ratios = []
    print("seed  videos  texts    R@1    R@5   R@10  MedR  | chance: R@5  MedR  | R@5 / chance")
    for seed in asked.seeds:
        found = measure(asked.folder.resolve(), seed, asked.overrides)["retrieval"]
        guess = found["chance"]
        ratios.append(found["r5"] / guess["r5"])
        model = f"{found['r1']:5.1f}  {found['r5']:5.1f}  {found['r10']:5.1f}  {found['median_rank']:4.1f}"
        asked_of = f"{seed:4d}  {found['videos']['found']:6d}  {found['candidates']:5d}"
        by_chance = f"{guess['r5']:5.1f}  {guess['median_rank']:4.1f}"
        print(f"{asked_of}  {model}  |        {by_chance}  | {ratios[-1]:.2f}", flush=True)
    spread = statistics.stdev(ratios) if len(ratios) > 1 else 0.0
    print(f"R@5 / chance: mean {statistics.mean(ratios):.2f}, standard deviation {spread:.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
