"""What may go wrong between us and a remote store, told apart by types and codes, and how long it is put up with.

transient     5xx, throttling, no connection, time-outs, dropped connections, short reads: asked again, with
              growing waits with jitter, and StorageError once the patience is over
refused       no keys, wrong keys, no right, no bucket: RootError at once, with the fix
full          the store has no room left: NoSpace at once
anything else StorageError at once; FileNotFoundError stays what it is
"""

from __future__ import annotations

import errno
import itertools
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import pyarrow as pa
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from deltalake.exceptions import DeltaError
from fsspec.utils import get_protocol

from sayso.errors import NoSpace, RootError, StorageError

T = TypeVar("T")


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

# Of botocore's exceptions: ConnectionError is no connection, HTTPClientError what goes wrong on one (time-outs too).
_TRANSIENT = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    ResponseParserError,  # half an answer is no XML
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    ConnectionError,
    TimeoutError,
)
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.ProfileNotFound,
)
# All that calls to a remote file system raise.
_FOREIGN = (OSError, boto.BotoCoreError, boto.ClientError, aiohttp.ClientError, ResponseParserError)

# Codes that S3 servers send with a status below 500.
_TRANSIENT_CODES = frozenset({
    "BadDigest",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "XAmzContentSHA256Mismatch",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "TooManyRequestsException",
})  # fmt: skip
_FULL_CODES = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_LASTING_STATUSES = frozenset({501, 505, 507})
_INSUFFICIENT_STORAGE = 507
_FORBIDDEN = frozenset({401, 403})
_TRANSIENT_NUMBERS = frozenset({
    errno.EBUSY, errno.EREMOTEIO, errno.EPIPE, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.EHOSTDOWN,
})  # fmt: skip


def transient(error: BaseException) -> bool:
    """Whether the same call to a remote store may go through a little later."""
    if isinstance(error, boto.SSLError):
        return False
    if isinstance(error, _TRANSIENT):
        return True
    code, status = _answer(error)
    if status is None:
        return isinstance(error, OSError) and error.errno in _TRANSIENT_NUMBERS
    if code in _FULL_CODES:
        return False
    return (
        code in _TRANSIENT_CODES or status in _TRANSIENT_STATUSES or (status >= 500 and status not in _LASTING_STATUSES)
    )


def _answer(error: BaseException | None) -> tuple[str, int | None]:
    """The code and the HTTP status that a server answered with, where an error is such an answer; s3fs wraps it."""
    while error is not None:
        if isinstance(error, boto.ClientError):
            details, facts = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
            return str(details.get("Code", "")), int(facts.get("HTTPStatusCode", 0)) or None
        error = error.__cause__
    return "", None


def persist(call: Callable[[], T], where: str, patience: Patience = PATIENCE) -> T:
    """Call until it goes through. Raises what `translated` makes of the error that stands in the end."""
    started = time.monotonic()
    for attempt in itertools.count(1):
        try:
            return call()
        except _FOREIGN as error:
            seconds, wait = time.monotonic() - started, patience.wait(attempt)
            over = attempt >= patience.attempts and seconds + wait > patience.seconds
            if over or not transient(error):
                told = translated(error, where, attempt, seconds)
                if told is error:
                    raise
                raise told from error
            time.sleep(wait)
    raise AssertionError("counting does not end")


def translated(error: Exception, where: str, attempts: int = 1, seconds: float = 0.0) -> Exception:
    """An error of a remote store in our own terms; FileNotFoundError stays what it is, unless it is the bucket."""
    code, status = _answer(error)
    if isinstance(error, _CREDENTIALS):
        return RootError(
            f"{where}: no keys for the object store ({error}); "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if code == "NoSuchBucket":
        return RootError(f"{where}: there is no such bucket; make it, or mend the URL or AWS_ENDPOINT_URL")
    if isinstance(error, boto.ParamValidationError) or code == "InvalidBucketName":
        return RootError(f"{where}: not a URL of an object store; give s3://bucket/prefix")
    if isinstance(error, FileNotFoundError):
        return error
    if status == _INSUFFICIENT_STORAGE or code in _FULL_CODES or getattr(error, "errno", None) in _FULL_NUMBERS:
        return NoSpace(f"no space left on {where}: free some and run the same command again")
    if isinstance(error, PermissionError) or status in _FORBIDDEN:
        return RootError(f"{where}: access denied{_named(code)}; give keys that may read and write there")
    tried = f" after {attempts} attempts in {seconds:.0f} s" if attempts > 1 else ""
    return StorageError(f"{where}: {_words(error)}{tried}; nothing is lost, the same command goes on from here")


def _named(code: str) -> str:
    return f" ({code})" if code and not code.isdigit() else ""


def _words(error: BaseException) -> str:
    """What an error says, on one line and without colours; deltalake draws trees."""
    plain = _COLOURS.sub("", str(error)).replace("↳", ":")
    return " ".join(plain.split()) or type(error).__name__


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FULL_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT})


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
    started = time.monotonic()
    for attempt in itertools.count(1):
        try:
            return call()
        except (OSError, DeltaError, pa.ArrowException, StorageError) as error:
            if not _of_a_store(error):
                raise
            seconds, wait = time.monotonic() - started, patience.wait(attempt)
            if attempt >= patience.attempts and seconds + wait > patience.seconds:
                raise StorageError(f"{url}: {_words(error)}; the same command goes on from here") from error
            time.sleep(wait)
    raise AssertionError("counting does not end")


def _of_a_store(error: Exception) -> bool:
    """Whether this is raised about a table where its store fails."""
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, pa.ArrowException | StorageError) or type(error) is DeltaError


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
