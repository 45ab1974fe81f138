"""One attempt at one row, and what can come of it."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from typing import Any

from sayso.errors import NoSpace, Permanent, Retry, RowError, Skip, StorageError, UserError, WorkFailed
from sayso.rows import FailureKind, Row
from sayso.stage import Stage

# Reasons given where a row killed or hung its worker, or took more memory than a worker may have.
WORKER_DIED = "worker_died"
TIMEOUT = "timeout"
OUT_OF_MEMORY = "out_of_memory"
DEADLY = frozenset({WORKER_DIED, TIMEOUT, OUT_OF_MEMORY})
# Reasons that lie in the surroundings, not in the row: it goes through once they are mended.
STORAGE = "storage"
NO_SPACE = "no_space"

# A failure's message is read by people and kept in a table: the end of a traceback says most.
_LONGEST_MESSAGE = 4000


@dataclass(frozen=True)
class Done:
    """The row became these records (dumped rows of the stage's output)."""

    records: list[dict[str, Any]]
    video_seconds: float
    bytes: int


@dataclass(frozen=True)
class Failed:
    """The row did not go through; `after` is the least wait before another attempt, in seconds."""

    kind: FailureKind
    reason: str
    message: str
    after: float = 0.0


@dataclass(frozen=True)
class Fatal:
    """No row can go through until a person acts: a model that is not there, a setting that cannot be."""

    error: UserError | WorkFailed


Outcome = Done | Failed | Fatal


def attempt(stage: Stage[Any, Any], row: Row) -> Outcome:
    """Try one row in this process, on an opened stage."""
    try:
        rows = list(stage(row))
        stored = sum(item.bytes for made in rows for item in made.objects())
        return Done([made.model_dump() for made in rows], stage.video_seconds(row, rows), stored)
    except RowError as error:
        return _refused(error)
    except StorageError as error:
        return Failed("retry", STORAGE, str(error))
    except NoSpace as error:
        return Failed("retry", NO_SPACE, str(error))
    except (UserError, WorkFailed) as error:
        return Fatal(error)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Failed("retry", NO_SPACE, f"no space left while working on {stage.key(row)}: {error}")
        return bug(error)
    except MemoryError as error:
        return Failed("retry", OUT_OF_MEMORY, bug(error).message)
    except Exception as error:  # noqa: BLE001  # whatever else a stage raises is a bug, kept with its traceback
        return bug(error)


def _refused(error: RowError) -> Failed:
    message = error.message[-_LONGEST_MESSAGE:]
    match error:
        case Skip():
            return Failed("skip", error.reason, message)
        case Retry(after=after):
            return Failed("retry", error.reason, message, after)
        case Permanent():
            return Failed("permanent", error.reason, message)
    raise AssertionError(f"a stage raised a bare {type(error).__name__}: use Skip, Retry or Permanent")


def bug(error: BaseException) -> Failed:
    """A failure that nobody foresaw: counted by the exception's name, kept with its traceback."""
    text = "".join(traceback.format_exception(error))
    return Failed("bug", type(error).__name__, text[-_LONGEST_MESSAGE:])
