"""What each rank runs: `python -m train.worker FOLDER/recipe.yaml`, started by the DeepSpeed launcher."""

import os
import sys
import threading
from pathlib import Path

import torch

from sayso.errors import SaysoError, UserError
from train.distributed import WATCH_STDIN
from train.engine import train
from train.recipe import load_recipe


def end_with_launcher() -> None:
    """End this process when whoever started the run is gone, however it went.

    The launcher keeps the other end of our standard input open and never writes; it closes with its process.
    """
    if os.environ.get(WATCH_STDIN) == "1":
        threading.Thread(target=_wait_for_end_of_stdin, daemon=True).start()


def _wait_for_end_of_stdin() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def main(path: Path) -> int:
    """Train a recipe as one rank; returns the exit code."""
    end_with_launcher()
    try:
        recipe = load_recipe(path)
        if recipe.engine.threads:
            torch.set_num_threads(recipe.engine.threads)
        train(recipe)
    except SaysoError as error:
        print(f"rank {os.environ.get('RANK', '0')}: {error}", file=sys.stderr)  # noqa: T201  # people read it
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
