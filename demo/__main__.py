"""`python -m demo --out DIR --videos 24 --seed 1` renders a demo world."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from demo.settings import WorldSettings
from demo.world import make_world


def main() -> int:
    """Read the command line and render."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Render a demo world of how-to videos.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to render into")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    for name, field in WorldSettings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        number = int if field.annotation is int else float
        parser.add_argument(flag, type=number, default=field.default, help=field.description)
    arguments = vars(parser.parse_args())
    out, workers = arguments.pop("out"), arguments.pop("workers")
    try:
        settings = WorldSettings(**arguments)
    except ValidationError as error:
        parser.error("; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()))
    world = make_world(settings, out, workers, lambda done, total: _tell(f"\rvideo {done} of {total}"))
    _tell(f"\n{len(world.videos)} videos in {out}\n")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
