"""One run in a folder at a time: whoever starts ranks there holds FOLDER/.lock until they have ended.

The system lets go of the lock when the process that holds it dies, however it does; of a machine that was lost the file
server does, NFS after 90 s. File systems that know no locks are taken as they are.
"""

import errno
import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from sayso.errors import InputError, RootBusy

LOCK = ".lock"
LOST_WITHIN = 120.0  # seconds until the lock of a machine that was lost is free
_POLL = 0.5
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class Hold:
    """A claim to a folder. Taken and let go of as often as it is needed.

    Where another machine's process has it, that machine may have been lost, which is waited for; with `patient` also
    where one of this machine has it.
    """

    def __init__(self, folder: Path, *, patient: bool = False) -> None:
        self._folder, self._patient = folder, patient
        self._file: TextIO | None = None

    def take(self) -> None:
        """Claim the folder, which is made where there is none. RootBusy where another process has it."""
        if self._file:
            return
        file = self._open()
        deadline = time.monotonic() + LOST_WITHIN
        while not _locked(file):
            file.seek(0)
            holder = file.read() or "another process"
            waits = self._patient or not holder.endswith(f" on {socket.gethostname()}")
            if not waits or time.monotonic() > deadline:
                file.close()
                raise RootBusy(
                    f"{self._folder}: {holder} trains there; wait for it or stop it, or give another output.folder"
                )
            time.sleep(_POLL)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file

    def _open(self) -> TextIO:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return (self._folder / LOCK).open("a+")
        except OSError as error:
            raise InputError(
                f"output.folder {self._folder} cannot be written to ({error.strerror}); give another one"
            ) from error

    def let_go(self) -> None:
        """Give up the claim, for processes that were forked meanwhile too."""
        file, self._file = self._file, None
        if file:
            with suppress(OSError):  # where there are no locks
                fcntl.flock(file, fcntl.LOCK_UN)
            file.close()


def _locked(file: TextIO) -> bool:
    """Whether the lock is ours now, or there are none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
