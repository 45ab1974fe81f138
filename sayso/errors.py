"""Every error that sayso raises on purpose, in one tree.

    SaysoError
    ├── UserError              the user can mend it; one clear line, exit code 2
    │   ├── ConfigError        a configuration key or value that cannot be used
    │   ├── InputError         a file, list or URL that cannot be used
    │   ├── RootError          a dataset root that cannot be opened or written
    │   └── ModelNotFound      a model that is nowhere to be found; says where it was looked for
    ├── WorkFailed             the work could not be done; exit code 1
    │   ├── Stopped            a person or a scheduler ended it; exit code 130
    │   │   └── Preempted      a scheduler ended it and wants it to go on elsewhere; exit code 75
    │   ├── NotFinite          a loss or a gradient is not a number; the same step would give it again
    │   ├── Crashed            processes or a machine ended before their work did; to be started again
    │   ├── NoSpace            the disk or the quota is full
    │   ├── StorageError       the object store does not answer or answers with errors
    │   ├── RootBusy           another run works on the same stage of the same root, or in the same training run
    │   └── TooManyBugs        rows fail one after the other with a traceback
    ├── CorruptObject          an object is not what its row says
    └── RowError               what a stage raises about one row
        ├── Skip(reason)       dropped by policy; counted
        ├── Retry(reason)      may go through later
        └── Permanent(reason)  will never go through

Anything else that a stage raises is a bug: it is kept with its traceback and many in a row stop the run.
A reason is a short word that somebody can count ("no_speech", "http_429"); the message is for people.
"""

from __future__ import annotations


class SaysoError(Exception):
    """Base of every error raised on purpose."""


class UserError(SaysoError):
    """The user can mend it; the message is one line and holds the fix."""


class ConfigError(UserError):
    """A configuration key or value that cannot be used."""


class InputError(UserError):
    """A file, list or URL that cannot be used."""


class RootError(UserError):
    """A dataset root that cannot be opened or written."""


class ModelNotFound(UserError):
    """A model that is nowhere to be found; the message says where it was looked for."""


class WorkFailed(SaysoError):
    """The work was begun and could not be done; what was done before is kept."""


class Stopped(WorkFailed):
    """A person or a scheduler ended it; the message says how to go on."""


class Preempted(Stopped):
    """A scheduler took the machine away (SIGTERM): what was done is in a checkpoint, to be resumed from."""


class NotFinite(WorkFailed):
    """A loss or a gradient of training is not a number; all ranks raise it at the same step."""


class Crashed(WorkFailed):
    """Processes or a machine ended before their work did; another start goes on from what was kept."""


class NoSpace(WorkFailed):
    """The disk or the quota is full."""


class StorageError(WorkFailed):
    """The object store does not answer, or answers with errors."""


class RootBusy(WorkFailed):
    """Another run works on the same stage of the same root, or in the same folder of a training run; only one may."""


class TooManyBugs(WorkFailed):
    """Rows failed one after the other with a traceback: the fault is in the code, not in the rows."""


class CorruptObject(SaysoError):
    """An object is not what its row says (size, checksum or form)."""


class RowError(SaysoError):
    """What a stage raises about one row. `reason` is counted, `message` is read."""

    def __init__(self, reason: str, message: str = "") -> None:
        self.reason = reason
        self.message = message or reason.replace("_", " ")
        super().__init__(self.message)


class Skip(RowError):
    """The row is dropped by policy."""


class Retry(RowError):
    """The row may go through later; `after` is the least time to wait, in seconds."""

    def __init__(self, reason: str, message: str = "", *, after: float = 0.0) -> None:
        super().__init__(reason, message)
        self.after = after


class Permanent(RowError):
    """The row will never go through."""
