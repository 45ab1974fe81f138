"""`python -m demo.site --world DIR --port N`: look at the demo site in a browser until Ctrl-C."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from demo.site.server import serve


def main() -> int:
    """Serve the world until the process is told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.site", description=__doc__)
    parser.add_argument("--world", type=Path, required=True, help="a folder that demo.world rendered")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--flaky-failures", type=int, default=2, help="503 answers before the flaky video is given out")
    options = parser.parse_args()
    if not (options.world / "world.json").is_file():
        parser.error(f"{options.world} has no world.json; render one there first")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with serve(options.world, options.port, flaky_failures=options.flaky_failures) as base_url:
            sys.stdout.write(f"{base_url}/\n")
            sys.stdout.flush()
            stopped.wait()
    except OSError as error:
        parser.error(f"port {options.port} cannot be used: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
