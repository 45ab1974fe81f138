"""What may go wrong between us and a remote store, told apart by types and codes, and how long it is put up with.

transient     5xx, throttling, no connection, time-outs, dropped connections, short reads: asked again, with
              growing waits with jitter, and StorageError once the patience is over
refused       no keys, wrong keys, no right, no bucket: RootError at once, with the fix
full          the store has no room left: NoSpace at once
too short     bytes were asked for that an object does not have: CorruptObject at once
anything else StorageError at once; FileNotFoundError stays what it is
"""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Callable
from typing import TypeVar

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from sayso.errors import CorruptObject, NoSpace, RootError, StorageError
from sayso.patience import PATIENCE, Patience, words

T = TypeVar("T")


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
_NO_SUCH_RANGE = 416
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
    if status == _NO_SUCH_RANGE:
        return CorruptObject(f"{where}: shorter than it should be")
    if status == _INSUFFICIENT_STORAGE or code in _FULL_CODES or getattr(error, "errno", None) in _FULL_NUMBERS:
        return NoSpace(f"no space left on {where}: free some and run the same command again")
    if isinstance(error, PermissionError) or status in _FORBIDDEN:
        return RootError(f"{where}: access denied{_named(code)}; give keys that may read and write there")
    tried = f" after {attempts} attempts in {seconds:.0f} s" if attempts > 1 else ""
    return StorageError(f"{where}: {words(error)}{tried}; nothing is lost, the same command goes on from here")


def _named(code: str) -> str:
    return f" ({code})" if code and not code.isdigit() else ""


_FULL_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT})
