"""Kill -9 at random points, start again, and compare with a run that nobody disturbed.

    make chaos ROUNDS=100              or: python -m tests.chaos --rounds 100 [--seed 7] [--only worker]
    python -m tests.chaos --replay 7/41   the round that failed, once more

A round ingests a small demo site (real yt-dlp, ffmpeg, Whisper, tars) into a new root on a real S3 server, on a real
Ray cluster of a head and two nodes, while one or two of these happen at random moments: a worker process is killed, a
node with all its workers is lost and another one joins, the driver is killed, the S3 server is killed and is away for
some seconds. The command is started again until it has ended by itself. Tables and shards must then be those of the
undisturbed run: same content, same bytes.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3fs
import yaml

from demo.settings import WorldSettings
from demo.site.server import serve
from demo.world import make_world
from ops.demo import demo_pipeline
from ops.pipeline import stages_of
from sayso.engine.failures import newest_failures
from sayso.engine.inputs import open_failures
from sayso.root import Root
from shards.plan import PLAN
from tests.cluster import RayCluster
from tests.contents import content_hash
from tests.seaweed import SeaweedFS

SAYSO = Path(sys.executable).with_name("sayso")
KINDS = ("worker", "node", "driver", "s3")
# A round that takes longer hangs.
_ROUND_SECONDS = 240.0
_MOST_STARTS = 10
_NODE = {"CPU": 1.0}
# The command's codes for "all done" and "done, but some rows failed": the site has two entries that cannot be fetched.
_ENDED = (0, 1)


@dataclass(frozen=True)
class Blow:
    """Something that is killed, so many seconds after the round began."""

    kind: str
    at: float


@dataclass
class Round:
    """What came of a round."""

    name: str
    blows: list[Blow]
    struck: list[str]
    starts: int
    seconds: float
    differences: list[str]
    printed: str

    def __str__(self) -> str:
        struck = ", ".join(self.struck) or "nothing struck"
        verdict = "equal" if not self.differences else f"DIFFERS in {', '.join(self.differences)}"
        return f"round {self.name}: {struck}; {self.starts} starts, {self.seconds:.0f} s: {verdict}"


class Chaos:
    """The surroundings of all rounds: site, S3 server, cluster, and the contents of the undisturbed run."""

    def __init__(self, folder: Path, server: SeaweedFS, cluster: RayCluster, config: Path) -> None:
        self._folder = folder
        self._server = server
        self._cluster = cluster
        self._config = config
        began = time.monotonic()
        root = self._root("undisturbed")
        code = self._start(root).wait(timeout=_ROUND_SECONDS)
        assert code in _ENDED, self._printed(root)
        self.undisturbed_seconds = time.monotonic() - began
        self.expected = contents(root)

    def _root(self, name: str) -> Root:
        return Root(f"{self._server.bucket('chaos')}/{name}").create()

    def _log(self, root: Root) -> Path:
        return self._folder / f"{Path(root.url).name}.log"

    def _printed(self, root: Root) -> str:
        return self._log(root).read_text(errors="replace")[-4000:]

    def _start(self, root: Root) -> subprocess.Popen[bytes]:
        command = [str(SAYSO), "run", "--root", root.url, "--config", str(self._config)]
        environment = {**self._cluster.environment, **self._server.environment, "OMP_NUM_THREADS": "1"}
        with self._log(root).open("ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def blows(self, name: str, kind: str | None = None) -> list[Blow]:
        """What happens in a round, decided by its name; `kind` is the first of one or two."""
        dice = random.Random(name)
        kinds = [kind or dice.choice(KINDS), *dice.sample(KINDS, dice.randint(0, 1))]
        # Not in the last quarter: this run may be quicker than the undisturbed one was.
        latest = 0.75 * self.undisturbed_seconds
        return sorted((Blow(each, dice.uniform(0.5, latest)) for each in kinds), key=lambda blow: blow.at)

    def round(self, name: str, kind: str | None = None) -> Round:
        """One round. `name` is `seed/number`; the same name gives the same blows.

        Where the run was over before anything was struck, the round is played again with all blows earlier.
        """
        for haste in (1.0, 0.5, 0.25):
            result = self._play(name, kind, haste)
            if result.struck:
                break
        return result

    def _play(self, name: str, kind: str | None, haste: float) -> Round:
        root, dice = self._root(f"{name}-{haste:g}".replace("/", "-")), random.Random(f"{name} targets")
        blows = [Blow(blow.kind, haste * blow.at) for blow in self.blows(name, kind)]
        waiting, struck, starts = list(blows), [], 1
        began = time.monotonic()
        driver = self._start(root)
        try:
            while True:
                assert time.monotonic() - began < _ROUND_SECONDS, f"round {name} hangs:\n{self._printed(root)}"
                if waiting and time.monotonic() - began >= waiting[0].at:
                    hit = self._strike(waiting[0].kind, dice, driver)
                    if hit:
                        struck.append(f"{hit} at {time.monotonic() - began:.1f} s")
                        waiting.pop(0)
                code = driver.poll()
                if code in _ENDED and self._settled(root):
                    break
                if code is not None:
                    assert starts < _MOST_STARTS, f"round {name} does not end:\n{self._printed(root)}"
                    starts += 1
                    driver = self._start(root)
                time.sleep(0.05)
        finally:
            if driver.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
        seconds = time.monotonic() - began
        return Round(
            name, blows, struck, starts, seconds, differences(self.expected, contents(root)), self._printed(root)
        )

    def _settled(self, root: Root) -> bool:
        """Whether nothing is left for another run: a row may be left to it when the storage was away for long."""
        return not any("retry" in open_failures(root, stage)["kind"].to_pylist() for stage in stages_of(root))

    def _strike(self, kind: str, dice: random.Random, driver: subprocess.Popen[bytes]) -> str | None:
        """Kill something; what was killed, or None where there is nothing of the kind yet."""
        if kind == "worker":
            return self._kill_worker(dice)
        if kind == "node":
            index = dice.randrange(len(self._cluster.nodes))
            self._cluster.kill_node(index)
            self._cluster.nodes.pop(index)
            self._cluster.add_node(_NODE)
            return "node"
        if kind == "driver":
            driver.kill()
            driver.wait()
            return "driver"
        seconds = dice.uniform(1.0, 5.0)
        self._server.kill()
        time.sleep(seconds)
        self._server.start()
        return f"s3 for {seconds:.1f} s and its start"

    def _kill_worker(self, dice: random.Random) -> str | None:
        pids = sorted(pid for node in self._cluster.nodes for pid in node.workers() if _works(pid))
        if not pids:
            return None
        pid = dice.choice(pids)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return "worker"


def _works(pid: int) -> bool:
    """Whether a process of Ray is one of the engine's workers, and not one that waits to become something."""
    try:
        return b"Worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def contents(root: Root) -> dict[str, str]:
    """Hashes of all tables and shards, and what was dropped or failed for good."""
    found = dict(content_hash(root))
    failures = {stage.name: open_failures(root, stage) for stage in stages_of(root)}
    for stage, rows in {**failures, PLAN: newest_failures(root, PLAN)}.items():
        facts = sorted((row["id"], row["kind"], row["reason"]) for row in rows.to_pylist())
        found[f"failures of {stage}"] = repr(facts)
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """The names of what is not the same."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


@contextmanager
def chaos(folder: Path) -> Iterator[Chaos]:
    """Site, S3 server and cluster, for as long as the context lasts."""
    world = folder / "world"
    make_world(WorldSettings(seed=5, videos=4, min_duration=8, max_duration=10), world, workers=2)
    with ExitStack() as stack:
        server = stack.enter_context(SeaweedFS(folder / "s3"))
        base_url = stack.enter_context(serve(world, port=0))
        variables = {**server.environment, "OMP_NUM_THREADS": "1"}
        cluster = stack.enter_context(RayCluster([_NODE, _NODE], variables=variables))
        before = dict(os.environ)
        stack.callback(_restore, before)
        os.environ.update(server.environment)
        s3fs.S3FileSystem.clear_instance_cache()
        config = folder / "pipeline.yaml"
        config.write_text(yaml.safe_dump(demo_pipeline(base_url).model_dump(mode="json"), sort_keys=False))
        yield Chaos(folder, server, cluster, config)


def _restore(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # Clients are kept for the next root, and they keep the server that the environment named when they were made.
    s3fs.S3FileSystem.clear_instance_cache()


def play(rounds: Iterator[tuple[str, str | None]], say: Callable[[str], None]) -> list[Round]:
    """Play rounds and tell of each; those that differ."""
    with tempfile.TemporaryDirectory(prefix="sayso-chaos-") as name, chaos(Path(name)) as surroundings:
        say(f"undisturbed: {surroundings.undisturbed_seconds:.0f} s")
        bad = []
        for each, kind in rounds:
            result = surroundings.round(each, kind)
            say(str(result))
            if result.differences:
                say(f"replay it with: python -m tests.chaos --replay {each}" + (f" --only {kind}" if kind else ""))
                say(result.printed)
                bad.append(result)
        return bad


def main() -> int:
    """Play the rounds that were asked for; 1 where one was not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", choices=KINDS, help="what is struck first in each round")
    parser.add_argument("--replay", metavar="SEED/NUMBER", help="only this round")
    asked = parser.parse_args()
    names = [asked.replay] if asked.replay else [f"{asked.seed}/{number}" for number in range(asked.rounds)]
    bad = play(((name, asked.only) for name in names), lambda text: print(text, flush=True))
    print(f"{len(names) - len(bad)} of {len(names)} rounds equal")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
