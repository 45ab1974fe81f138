"""How long a remote store that fails is put up with, and reading tables again where it does.

Here is what every command needs; what may go wrong with objects, and the libraries that name it, is in remote.py.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from fsspec.utils import get_protocol

from sayso.errors import StorageError

T = TypeVar("T")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a store that fails is asked again: for `seconds`, and at least `attempts` times."""

    seconds: float = 60.0
    attempts: int = 2
    first_wait: float = 0.25
    longest_wait: float = 5.0
    connect_timeout: float = 5.0
    read_timeout: float = 10.0
    """Seconds without a byte from the store until a request is given up."""

    def wait(self, attempt: int) -> float:
        """Seconds to wait after the given attempt, the first being 1."""
        longest = min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0)


PATIENCE = Patience()


def ride_out(call: Callable[[], T], url: str, patience: Patience = PATIENCE) -> T:
    """Call what asks deltalake about the tables at `url` until it goes through; StorageError once the patience is over.

    The call must do no harm when it is made twice: an append looks first whether its rows are there. deltalake tries
    most requests again itself (`table_options`), but not those whose answer breaks off. What is left comes as OSError
    without a number, as a bare DeltaError or, out of a scan, as an error of Arrow; a damaged file looks the same.
    Subclasses of DeltaError (no table, another schema, a commit that lost) are passed on. Locally nothing is tried
    twice, and errors stay what they are.
    """
    if get_protocol(url) in ("file", "local"):
        return call()
    # Readers of shards, which have no tables, do without the 20 MB that this takes.
    from deltalake.exceptions import DeltaError

    started = time.monotonic()
    for attempt in itertools.count(1):
        try:
            return call()
        except (OSError, DeltaError, pa.ArrowException, StorageError) as error:
            if not (type(error) is DeltaError or _of_a_store(error)):
                raise
            seconds, wait = time.monotonic() - started, patience.wait(attempt)
            if attempt >= patience.attempts and seconds + wait > patience.seconds:
                raise StorageError(f"{url}: {words(error)}; the same command goes on from here") from error
            time.sleep(wait)
    raise AssertionError("counting does not end")


def _of_a_store(error: Exception) -> bool:
    """Whether this is raised about a table where its store fails."""
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, pa.ArrowException | StorageError)


def table_options(options: dict[str, Any], patience: Patience = PATIENCE) -> dict[str, str]:
    """deltalake's options for a remote table: commits that cannot overwrite one another, and our patience."""
    given = {_TABLE_NAMES[name]: str(value) for name, value in options.items() if name in _TABLE_NAMES}
    return {
        **given,
        "conditional_put": "etag",
        "max_retries": "1000",  # the time limit is what counts
        "retry_timeout": _milliseconds(patience.seconds),
        "backoff_config.init_backoff": _milliseconds(patience.first_wait),
        "backoff_config.max_backoff": _milliseconds(patience.longest_wait),
        "backoff_config.base": "2",
        "connect_timeout": _milliseconds(patience.connect_timeout),
        "timeout": _milliseconds(2 * patience.read_timeout),  # of a whole request, where the other is of one silence
    }


# How s3fs and deltalake call the same things.
_TABLE_NAMES = {
    "key": "AWS_ACCESS_KEY_ID",
    "secret": "AWS_SECRET_ACCESS_KEY",
    "token": "AWS_SESSION_TOKEN",
    "endpoint_url": "AWS_ENDPOINT_URL",
}


def _milliseconds(seconds: float) -> str:
    return f"{round(1000 * seconds)}ms"


def words(error: BaseException) -> str:
    """What an error says, on one line and without colours; deltalake draws trees."""
    plain = _COLOURS.sub("", str(error)).replace("↳", ":")
    return " ".join(plain.split()) or type(error).__name__
