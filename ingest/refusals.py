"""What yt-dlp raises, in the words of our error tree: by the type of the error and the HTTP status, never by its text.

| what happened | becomes |
|---|---|
| HTTP 408, 425, 429, 5xx | Retry("http_<status>"), not before Retry-After |
| any other HTTP error | Permanent("http_<status>") |
| connection refused, reset, timed out, name not found, proxy | Retry("network") |
| fewer bytes than announced | Retry("truncated") |
| certificate that cannot be verified | Permanent("bad_certificate") |
| blocked in this country | Permanent("geo_restricted") |
| no extractor takes the URL, or it needs a protocol that is not spoken | Permanent("unsupported_url") |
| a stream that is not on | Skip("live") |
| the site says why not (private, removed, for members) | Permanent("unavailable") |
| a page that yt-dlp cannot read | Permanent("extractor_failed") |
| no space left | NoSpace |
"""

import errno
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from yt_dlp.networking.exceptions import CertificateVerifyError, HTTPError, IncompleteRead, RequestError, TransportError
from yt_dlp.utils import (
    ContentTooShortError,
    ExtractorError,
    GeoRestrictedError,
    UnsupportedError,
    UserNotLive,
    YoutubeDLError,
)

from sayso.errors import NoSpace, Permanent, Retry, RowError, SaysoError, Skip

LONGEST_WAIT = 24 * 3600.0  # a Retry-After beyond a day is not believed
_TRANSIENT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def refusal(error: BaseException, *, last_network_error: BaseException | None = None) -> SaysoError | None:
    """Return the error of our tree that `error` stands for, or None if it is none that yt-dlp is known to raise.

    last_network_error: what the last request failed with, or None if it went through. yt-dlp's downloader gives up
    after its retries with an error that has lost its cause; this is the cause.
    """
    links = list(_chain(error))
    ours = (link for link in links if isinstance(link, SaysoError))  # raised by a hook of ours inside yt-dlp
    if known := next(ours, None) or next(filter(None, map(_translate, links)), None):
        return known
    if last_network_error is not None:
        return refusal(last_network_error)
    expected = [link.expected for link in links if isinstance(link, ExtractorError)]
    if expected:
        return Permanent("unavailable" if any(expected) else "extractor_failed", one_line(error))
    if isinstance(error, YoutubeDLError):
        return Retry("truncated", one_line(error))
    return None


def is_unknown_host(error: BaseException) -> bool:
    """Whether an error comes from a host's name that name servers do not know."""
    return any(isinstance(link, socket.gaierror) and link.errno == socket.EAI_NONAME for link in _chain(error))


def _translate(error: BaseException) -> SaysoError | None:
    match error:
        case HTTPError():
            return _http_error(error)
        case CertificateVerifyError():
            return Permanent("bad_certificate", one_line(error))
        case ContentTooShortError() | IncompleteRead():
            return Retry("truncated", one_line(error))
        case GeoRestrictedError():
            return Permanent("geo_restricted", one_line(error))
        case UnsupportedError():
            return Permanent("unsupported_url", one_line(error))
        case UserNotLive():
            return Skip("live", one_line(error))
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return NoSpace("no space left for the download: free some and run the same command again")
        case TransportError() | TimeoutError() | ConnectionError():
            return Retry("network", one_line(error))
        case RequestError():
            return Permanent("unsupported_url", one_line(error))
    return None


def _http_error(error: HTTPError) -> RowError:
    reason, message = f"http_{error.status}", one_line(error)
    if error.status in _TRANSIENT or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Retry(reason, message, after=retry_after(error.response.headers.get("Retry-After")))
    return Permanent(reason, message)


def retry_after(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for: a number or a date; 0 where it says nothing usable."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), LONGEST_WAIT)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(0.0, (aware - datetime.now(UTC)).total_seconds()), LONGEST_WAIT)


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, without yt-dlp's mark before it and its plea for reports behind it."""
    text = getattr(error, "orig_msg", None) or str(error) or type(error).__name__
    return str(text).strip().split("\n")[0].removeprefix("ERROR: ").partition("; please report this issue")[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything it was made from, nearest first."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        exc_info = getattr(link, "exc_info", None) or (None, None, None)
        causes = (exc_info[1], getattr(link, "cause", None), link.__cause__, link.__context__)
        waiting.extend(cause for cause in causes if isinstance(cause, BaseException))
