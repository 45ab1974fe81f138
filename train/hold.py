"""One run in a folder at a time: whoever starts ranks there holds FOLDER/.lock until they have ended.

The system lets go of the lock when the process that holds it dies, however it does. File systems that know no locks are
taken as they are.
"""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from sayso.errors import InputError, RootBusy

LOCK = ".lock"
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class Hold:
    """A claim to a folder. Taken and let go of as often as it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: TextIO | None = None

    def take(self) -> None:
        """Claim the folder, which is made where there is none. RootBusy where another process has it."""
        if self._file:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / LOCK).open("a+")
        except OSError as error:
            raise InputError(
                f"output.folder {self._folder} cannot be written to ({error.strerror}); give another one"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            raise RootBusy(
                f"{self._folder}: {holder} trains there; wait for it or stop it, or give another output.folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file

    def let_go(self) -> None:
        """Give up the claim, for processes that were forked meanwhile too."""
        if self._file:
            with suppress(OSError):  # where there are no locks
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()
            self._file = None
