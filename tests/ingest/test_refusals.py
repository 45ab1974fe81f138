import errno
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yt_dlp.networking.common import Response
from yt_dlp.networking.exceptions import (
    CertificateVerifyError,
    HTTPError,
    IncompleteRead,
    NoSupportingHandlers,
    ProxyError,
    TransportError,
)
from yt_dlp.utils import (
    ContentTooShortError,
    DownloadError,
    ExtractorError,
    GeoRestrictedError,
    UnsupportedError,
    UserNotLive,
)

from ingest.refusals import LONGEST_WAIT, refusal, retry_after
from sayso.errors import NoSpace, Permanent, Retry, RowError, Skip


def http_error(status: int, **headers: str) -> HTTPError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPError(Response(BytesIO(), "http://example.com/", named, status=status))


def wrapped(error: BaseException) -> DownloadError:
    return DownloadError("ERROR: gave up", (type(error), error, None))


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (http_error(429), Retry, "http_429"),
        (http_error(503), Retry, "http_503"),
        (http_error(500), Retry, "http_500"),
        (http_error(408), Retry, "http_408"),
        (http_error(403), Permanent, "http_403"),
        (http_error(404), Permanent, "http_404"),
        (http_error(410), Permanent, "http_410"),
        (GeoRestrictedError("not in your country"), Permanent, "geo_restricted"),
        (UnsupportedError("http://example.com"), Permanent, "unsupported_url"),
        (UserNotLive(), Skip, "live"),
        (ExtractorError("This video is private", expected=True), Permanent, "unavailable"),
        (ExtractorError("cannot parse"), Permanent, "extractor_failed"),
        (TransportError("refused"), Retry, "network"),
        (ProxyError("refused"), Retry, "network"),
        (NoSupportingHandlers([], []), Permanent, "unsupported_url"),
        (CertificateVerifyError("expired"), Permanent, "bad_certificate"),
        (TimeoutError(), Retry, "network"),
        (ConnectionResetError(), Retry, "network"),
        (ContentTooShortError(10, 20), Retry, "truncated"),
        (IncompleteRead(10, 20), Retry, "truncated"),
        (Skip("too_big"), Skip, "too_big"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_errors_are_told_by_their_type(
    error: BaseException, kind: type[RowError], reason: str, *, inside: bool
) -> None:
    found = refusal(wrapped(error) if inside else error)
    assert isinstance(found, kind)
    assert found.reason == reason


def test_the_cause_inside_an_extractors_error_decides() -> None:
    found = refusal(wrapped(ExtractorError("no page", cause=http_error(429, Retry_After="7"))))
    assert isinstance(found, Retry)
    assert (found.reason, found.after) == ("http_429", 7.0)


def test_an_error_that_lost_its_cause_takes_the_last_requests() -> None:
    found = refusal(DownloadError("Giving up"), last_network_error=http_error(503))
    assert isinstance(found, Retry)
    assert found.reason == "http_503"
    ended_early = refusal(DownloadError("Giving up"))
    assert isinstance(ended_early, Retry)
    assert ended_early.reason == "truncated"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_fault_of_the_video(number: int) -> None:
    assert isinstance(refusal(wrapped(OSError(number, "full"))), NoSpace)


def test_what_yt_dlp_does_not_raise_is_a_bug() -> None:
    assert refusal(KeyError("formats")) is None
    assert refusal(OSError(errno.EACCES, "denied")) is None


def test_a_ring_of_causes_ends() -> None:
    one, other = ValueError("a"), ValueError("b")
    one.__context__, other.__context__ = other, one
    assert refusal(one) is None


def test_retry_after_is_seconds_or_a_date() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < retry_after(in_a_minute) <= 60
    assert retry_after("120") == 120
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("999999999") == LONGEST_WAIT


@given(st.text() | st.none())
def test_retry_after_stands_any_header(header: str | None) -> None:
    assert 0 <= retry_after(header) <= LONGEST_WAIT


def test_messages_are_one_line() -> None:
    found = refusal(wrapped(ExtractorError("first\nsecond", expected=True)))
    assert found is not None
    assert "\n" not in str(found)
