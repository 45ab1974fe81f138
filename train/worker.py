"""What each rank runs: `python -m train.worker FOLDER/recipe.yaml`, started by the DeepSpeed launcher."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import torch

from sayso.errors import NotFinite, Preempted, SaysoError, StorageError, UserError
from sayso.storage import no_space_named
from train.distributed import GAVE_UP, RESUME, WATCH_STDIN
from train.engine import train
from train.recipe import load_recipe
from train.stopping import let_sigterm_through


def heed_launcher(stop: threading.Event) -> None:
    """Set `stop` when whoever started the run asks for it, and end this process when they are gone, however they went.

    The launcher keeps the other end of our standard input open: a byte that comes is the wish to stop (the first rank
    that reads it tells the others, train/guard.py), its end is the launcher's. SIGTERM means what the byte means.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    let_sigterm_through()
    if os.environ.get(WATCH_STDIN) == "1":
        threading.Thread(target=_watch_stdin, args=(stop,), daemon=True).start()


def _watch_stdin(stop: threading.Event) -> None:
    while os.read(0, 1):
        stop.set()
    os._exit(1)


def main(path: Path) -> int:
    """Train a recipe as one rank; returns the exit code. A traceback's is 1: there, another start may do better."""
    stop = threading.Event()
    heed_launcher(stop)
    try:
        recipe = load_recipe(path)
        if recipe.engine.threads:
            torch.set_num_threads(recipe.engine.threads)
        with no_space_named(str(recipe.output.folder)):
            train(recipe, stop)
    except Preempted:
        return RESUME
    except NotFinite:
        return GAVE_UP  # the first rank has said why
    except SaysoError as error:
        print(f"rank {os.environ.get('RANK', '0')}: {error}", file=sys.stderr)  # noqa: T201  # people read it
        if isinstance(error, StorageError):
            return 1  # another start may find it answering again
        return 2 if isinstance(error, UserError) else GAVE_UP
    return 0


def end(code: int) -> NoReturn:
    """End this process with a code, whatever native threads of gloo and DeepSpeed are still about.

    With ZeRO 3 one of them now and then aborts an interpreter that ends in order, and the code is lost. There is
    nothing left to be ended in order: what was trained is on the disk, and the ranks have left their group.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Say what went wrong and end at once: the others wait, and in order an end would wait for clips under way."""
    sys.__excepthook__(kind, error, trace)
    end(1)


if __name__ == "__main__":
    sys.excepthook = crash
    end(main(Path(sys.argv[1])))
