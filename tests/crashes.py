"""A process that dies at one exact point, so that a test can look at what it left and what the next run does.

    python -m tests.crashes WINDOW keep ROOT          a small stage as the engine works on it, in this process
    python -m tests.crashes WINDOW shards ROOT        the stage `shard`, so too
    python -m tests.crashes WINDOW run ROOT [KIND]    the small stage by the engine, on the Ray cluster around us
    python -m tests.crashes WINDOW sayso ARGUMENTS    a command

`WINDOW` is one of WINDOWS, or "never". The process kills itself with SIGKILL there, the first time it comes by; only
in the middle of a table's log entry, which is written outside Python, the kernel ends it by a limit on file sizes.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import ingest.discover
import ops.forget
import ops.repair
import sayso.engine.failures
import sayso.engine.lease
import sayso.s3
from ops.cli import main as sayso_command
from sayso.engine import Engine, EngineSettings, attempt
from sayso.engine.lane import Lane
from sayso.engine.lease import Holder, lease
from sayso.engine.ledger import Ledger
from sayso.errors import Permanent, RootBusy, Skip
from sayso.root import Root
from sayso.rows import Media, Narration, Row, SourceFacts, Video
from sayso.s3 import Upload
from sayso.stage import Stage
from sayso.storage import Storage
from sayso.writer import Writer
from shards.settings import ShardSettings
from shards.stage import MakeShards

OBJECT_BYTES = 1 << 20
PART_BYTES = 5 << 20
"""The least that an S3 server takes for a part."""
TAKEOVER_SECONDS = 3.0
BUSY = 7
"""The exit code of a run that another one keeps out."""
SETTINGS = EngineSettings(workers=1, backoff=0.05, commit_seconds=0.2)
SHARD_SETTINGS = ShardSettings(samples_per_shard=8, val=0.25, test=0.25)
_COMMIT_ROWS = 3
_LOG_ENTRY_BYTES = 1 << 17


class Keep(Stage[Video, Media]):
    """Stores an object for each video and makes a row of it; some videos are dropped, some are no good, some large."""

    name, reads, writes = "keep", Video, Media

    def __init__(self, root: Root, diary: Path | None = None, seconds: float = 0.0) -> None:
        """`diary` holds what happened once already: a row dies in the window that its title names only once."""
        super().__init__(root)
        self._diary, self._seconds = diary, seconds

    def __call__(self, row: Video) -> Sequence[Media]:
        """The stored object's row."""
        if self._diary and row.title in WINDOWS and not (mark := self._diary / row.video_id).exists():
            mark.touch()
            WINDOWS[row.title]()
        if row.title == "skip":
            raise Skip("no_speech")
        if row.title == "no good":
            raise Permanent("http_404")
        time.sleep(self._seconds)
        data = random.Random(row.video_id).randbytes(2 * PART_BYTES + 1 if row.title == "large" else OBJECT_BYTES)
        stored = self.root.storage.put_bytes(data, f"media/{row.video_id}/proxy.mp4")
        facts = SourceFacts(sha256=stored.sha256, bytes=stored.bytes, container="mp4", duration=1.0)
        return [
            Media(
                video_id=row.video_id, key=stored.key, sha256=stored.sha256, bytes=stored.bytes, duration=1.0, width=1,
                height=1, fps=10.0, audio=True, source=facts,
            )
        ]  # fmt: skip


def work(stage: Stage[Any, Any]) -> None:
    """Do all that is pending of a stage with the engine's parts, in this process; commits after every few rows."""
    with lease(stage.root, "worked", [stage.name]):
        lane = Lane(stage, stage.root, SETTINGS)
        lane.begin()
        stage.open()
        while batch := lane.next_batch():
            for row in batch.rows:
                lane.settle(row, attempt(stage, row))
            if lane.uncommitted >= _COMMIT_ROWS:
                lane.commit()
        lane.commit()
        lane.finish()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL came back")


def _stand_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


Fits = Callable[..., bool]


def _point(
    owner: Any, name: str, *, fits: Fits = lambda *a, **k: True, after: bool = False, act: Callable[[], None] = _die
) -> Callable[[], None]:
    """Arms a point: before (or after) the first call of `owner.name` whose arguments fit, `act` happens, once."""

    def arm() -> None:
        original = getattr(owner, name)

        @wraps(original)
        def armed(*args: Any, **options: Any) -> Any:
            if not fits(*args, **options):
                return original(*args, **options)
            setattr(owner, name, original)
            if after:
                result = original(*args, **options)
                act()
                return result
            act()
            return original(*args, **options)

        setattr(owner, name, armed)

    return arm


def _putting(*endings: str) -> Fits:
    return lambda storage, source, key: key.endswith(endings)


def _syncing(folder: str) -> Fits:
    return lambda number: f"/{folder}/" in os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115  # not a path


def _uploading(method: str, part: int | None = None) -> Callable[[], None]:
    """Arms a call of an upload in parts, which a large object takes."""

    def fits(upload: Upload, called: str, **options: Any) -> bool:
        return called == method and part in (None, options.get("PartNumber"))

    def arm() -> None:
        sayso.s3._PART_BYTES = PART_BYTES
        _point(Upload, "_call", fits=fits)()

    return arm


def _appending(name: str, table: type[Row], *, again: bool = False) -> Fits:
    """Appends of rows under a name to a table, from the second on where it is to be `again`."""

    def fits(writer: Writer, records: Sequence[Any]) -> bool:
        found = bool(records) and writer.name == name and writer._model is table
        return found and (writer.commits > 0 or not again)

    return fits


def _half(ending: str) -> Callable[[], None]:
    """Arms a copy of which only the first half is written, for the first object that ends so."""

    def copy(source: Any, target: Any, length: int = 0) -> None:
        data = source.read()
        target.write(data[: len(data) // 2])
        target.flush()
        _die()

    def arm() -> None:
        _point(Storage, "_put_local", fits=_placing(ending), act=lambda: setattr(shutil, "copyfileobj", copy))()

    return arm


def _placing(ending: str) -> Fits:
    return lambda storage, source, target: target.name.endswith(ending)


def _log_entry() -> None:
    """Let the kernel end this process while it writes the second log entry of table media."""

    def arm_kernel() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python asks to be told instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LOG_ENTRY_BYTES // 2, _LOG_ENTRY_BYTES // 2))

    def enlarge(writer: Writer, records: Sequence[Any]) -> bool:
        fits = _appending("keep", Media, again=True)(writer, records)
        if fits:  # the entry, which holds the token, becomes larger than the limit, and the rows' file stays smaller
            writer._token = "x" * _LOG_ENTRY_BYTES
        return fits

    _point(Writer, "append", fits=enlarge, act=arm_kernel)()


def _asking() -> None:
    sayso.engine.failures._BLOCK = 2
    _point(sayso.engine.failures, "_again", fits=lambda stage, key, *rest: key == "v2")()


def _discovering() -> None:
    ingest.discover._COMMIT_ROWS = 2
    _point(Writer, "append", after=True, fits=_appending("discover", Video))()


def _removing(ending: str, beginning: str = "") -> Fits:
    return lambda storage, key: key.endswith(ending) and key.startswith(beginning)


def _step(name: str) -> Callable[[], None]:
    """Arms the end of a step of forgetting."""

    def arm() -> None:
        steps = list(ops.forget.STEPS)
        place = next(place for place, step in enumerate(steps) if step.__name__ == name)
        steps.insert(place + 1, lambda work: _die())
        ops.forget.STEPS = tuple(steps)

    return arm


WINDOWS: dict[str, Callable[[], None]] = {
    "before the object": _point(Storage, "put_file", fits=_putting("proxy.mp4")),
    "half of the object": _half("proxy.mp4"),
    "object written and not in its place": _point(os, "fsync", after=True, fits=_syncing("media")),
    "object in place": _point(Storage, "put_file", after=True, fits=_putting("proxy.mp4")),
    "between the parts": _uploading("upload_part", 2),
    "parts there and not put together": _uploading("complete_multipart_upload"),
    "before the results": _point(Writer, "append", fits=_appending("keep", Media, again=True)),
    "in the log entry": _log_entry,
    "between results and failures": _point(Writer, "append", after=True, fits=_appending("keep", Media, again=True)),
    "after both": _point(Ledger, "commit", after=True),
    "before the lease": _point(sayso.engine.lease, "_beat"),
    "half of the lease": _half("worked.json"),
    "after the lease": _point(sayso.engine.lease, "_beat", after=True),
    "half of the settings": _half("export.json"),
    "between settings and plans": _point(Writer, "append", fits=_appending("plan:clips", MakeShards.reads)),
    "between plans and copies": _point(Writer, "append", after=True, fits=_appending("plan:clips", MakeShards.reads)),
    "half of the tar": _half(".tar"),
    "between tar and index": _point(Storage, "put_file", after=True, fits=_putting(".tar")),
    "between index and row": _point(Storage, "put_file", after=True, fits=_putting(".index.parquet")),
    "before the manifest": _point(Storage, "put_file", fits=_putting("manifest.parquet")),
    "half of the manifest": _half("manifest.parquet"),
    "while failures are asked again": _asking,
    "between two commits of discover": _discovering,
    "when the root is made": _point(Storage, "remove"),
    "forget: remembered": _point(ops.forget, "_remember", after=True),
    "forget: configurations cleaned": _step("_clean_configurations"),
    "forget: some objects removed": _point(Storage, "remove", after=True, fits=_removing("/proxy.mp4")),
    "forget: rows of the first tables removed": _point(
        ops.forget, "rewrite", fits=lambda root, model, change: model is Narration
    ),
    "forget: between rows and plans": _step("_rewrite_tables"),
    "forget: between plans and shards": _step("_rewrite_plans"),
    "forget: tar in place, no row": _point(Storage, "put_file", after=True, fits=_putting(".tar")),
    "forget: shards made, before the manifest": _step("_make_shards_again"),
    "forget: old files removed in part": _point(Storage, "remove", fits=_removing(".parquet", "tables/narrations/")),
    "forget: before it is proven": _point(ops.forget, "scan"),
    "repair: proxy fetched again, old row": _point(ops.repair, "_replace"),
    "repair: between the old row and the new": _point(Writer, "append", fits=_appending("fetch", Media)),
    "repair: checkpoint away, none made": _point(ops.repair, "cut_log"),
    "stand still before the results": _point(
        Writer, "append", fits=_appending("keep", Media, again=True), act=_stand_still
    ),
}
"""Each name with what makes this process die there."""


class _Far(Holder):
    """The holder of a lease on another machine."""

    machine: str = "another"


@contextmanager
def _no_lease(*_: object) -> Iterator[None]:
    """What remains of a lease that does not see the other run."""
    yield


def _wait_for_the_other(begin: Callable[[Lane], None]) -> Callable[[Lane], None]:
    """Two runs begin a stage before one of them commits."""

    def both_begun(lane: Lane) -> None:
        begin(lane)
        folder = Path(lane.stage.root.url)
        (folder / f"begun-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(folder.glob("begun-*"))) < 2:
            assert time.monotonic() < deadline, "the other run did not begin"
            time.sleep(0.01)

    return both_begun


def _run(url: str, kind: str = "") -> int:
    """One stage by the engine. `kind` is "far" for a run on another machine, "hasty" for one that watches
    others' leases for a few seconds only, "blind" for one that sees none.
    """
    if kind == "far":
        sayso.engine.lease.Holder = _Far  # type: ignore[misc]
    elif kind == "hasty":
        sayso.engine.lease._DEAD_AFTER_SECONDS = TAKEOVER_SECONDS
    elif kind == "blind":
        sayso.engine.run.lease = _no_lease  # type: ignore[assignment,attr-defined]
        Lane.begin = _wait_for_the_other(Lane.begin)  # type: ignore[method-assign,assignment]
    root = Root(url)
    diary = Path(url, "diary")
    try:
        with Engine(root, SETTINGS) as engine:
            engine.run([Keep(root, diary if diary.exists() else None, seconds=0.1)])
    except RootBusy as error:
        print(error, flush=True)  # noqa: T201
        return BUSY
    return 0


def main(window: str, what: str, *arguments: str) -> int:
    """Do it, up to the window."""
    if window != "never":
        WINDOWS[window]()
    if what == "run":
        return _run(*arguments)
    if what == "sayso":
        sys.argv = ["sayso", *arguments]
        sayso_command()
        return 0
    root = Root(arguments[0])
    work(Keep(root) if what == "keep" else MakeShards(root, SHARD_SETTINGS))
    return 0


if __name__ == "__main__":
    # Not this module's own: what it sends to workers must have a name there.
    from tests.crashes import main as imported

    sys.exit(imported(*sys.argv[1:]))
