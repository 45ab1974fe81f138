"""What S3 needs beyond fsspec's calls: time-outs that hold, and uploads in parts of which each is tried again.

s3fs alone waits without end where a server takes a connection and hangs before it asks for the body ("Expect:
100-continue"), and starts a large upload from its beginning where one part fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import urllib3
from botocore.exceptions import BotoCoreError

from sayso.errors import SaysoError, StorageError
from sayso.patience import Patience
from sayso.remote import persist

_PART_BYTES = 8 << 20
# So often an upload that somebody else aborted is begun anew.
_UPLOADS = 5
# Who sends less than this much in a second is taken for hanging.
_SLOWEST_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
# A signed URL is used for so long, and good for twice as long; so many are kept.
_SIGNED_SECONDS = 1800
_MOST_SIGNED = 4096
_CONNECTIONS = 32
_WHOLE, _PART = 200, 206
_NOT_THERE = (404, 416)


class PlainGetFailed(Exception):
    """An object could not be had by a plain request; `known` where the store itself says that it has no such bytes."""

    def __init__(self, message: str, *, known: bool = False) -> None:
        super().__init__(message)
        self.known = known


def s3_options(options: dict[str, Any], patience: Patience) -> dict[str, Any]:
    """s3fs's options: a hung server is noticed in seconds, and a request is sent twice at most.

    Everything beyond that is tried again by `persist`, so that waits do not multiply.
    """
    config = {
        "connect_timeout": patience.connect_timeout,
        "read_timeout": patience.read_timeout,
        "retries": {"mode": "standard", "total_max_attempts": 2},
        **options.get("config_kwargs", {}),
    }
    # Listings are not kept: other processes write too. With one at a time, a read is one request and not two.
    return {"use_listings_cache": False, "max_concurrency": 1, **options, "config_kwargs": config}


class Upload:
    """Uploads of local files to one path of S3, in one request or in parts; they show whole once they are done."""

    def __init__(self, fs: Any, path: str, patience: Patience) -> None:
        self.fs, self.path, self.patience = fs, path, patience
        bucket, key, _ = fs.split_path(path)
        self.place = {"Bucket": bucket, "Key": key}

    def put(self, source: Path) -> None:
        """Upload a file, replacing what is there. A failed one leaves nothing under the key."""
        if source.stat().st_size <= 2 * _PART_BYTES:
            self._call("put_object", Body=source.read_bytes())
            return
        for _ in range(_UPLOADS):
            with suppress(FileNotFoundError):  # somebody took our upload for a dead one
                self._put_parts(source)
                return
        raise StorageError(f"s3://{self.path}: uploads of it are aborted by somebody else; run the same command again")

    def _put_parts(self, source: Path) -> None:
        try:
            upload = {"UploadId": self._call("create_multipart_upload")["UploadId"]}
            with source.open("rb") as file:
                parts = self._send_parts(file, upload)
            self._complete(upload, parts, source.stat().st_size)
        finally:
            self._abort_begun()

    def _send_parts(self, file: BinaryIO, upload: dict[str, str]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        while body := file.read(_PART_BYTES):
            number = len(parts) + 1
            sent = self._call("upload_part", **upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        return parts

    def _complete(self, upload: dict[str, str], parts: list[dict[str, Any]], size: int) -> None:
        try:
            self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except FileNotFoundError:
            # Completed by an earlier attempt, of which the answer was lost? Then it is there.
            if self._call("head_object")["ContentLength"] != size:
                raise

    def _abort_begun(self) -> None:
        """Throw away what is left of uploads to this key, where the store answers.

        Ours if it failed, those whose begin was never answered, and those of killed workers. Another writer that is
        still at it writes the same bytes, and begins anew. What is missed, the bucket's life-cycle rule clears.
        """
        short = Upload(self.fs, self.path, replace(self.patience, seconds=min(5.0, self.patience.seconds)))
        with suppress(SaysoError, FileNotFoundError):
            found = short._call("list_multipart_uploads", Prefix=self.place["Key"])
            for begun in found.get("Uploads", []):
                if begun["Key"] == self.place["Key"]:
                    short._call("abort_multipart_upload", UploadId=begun["UploadId"])

    def _call(self, method: str, **arguments: Any) -> Any:
        limit = 2 * self.patience.read_timeout + len(arguments.get("Body", b"")) / _SLOWEST_BYTES
        call = self.fs.call_s3
        return persist(
            lambda: call(method, **self.place, **arguments, timeout=limit), f"s3://{self.path}", self.patience
        )


class PlainGets:
    """Objects of S3 by plain requests for signed URLs, over connections that are kept. Any thread may ask.

    Several times as fast as through s3fs, whose event loop hands each piece on several times. It knows no proxies and
    no certificates of one's own. Every call raises PlainGetFailed, whatever went wrong: s3fs then says what it is.
    """

    def __init__(self, fs: Any, patience: Patience) -> None:
        timeout = urllib3.Timeout(connect=patience.connect_timeout, read=patience.read_timeout)
        self._fs = fs
        self._pool = urllib3.PoolManager(retries=False, timeout=timeout, maxsize=_CONNECTIONS)
        self._signed: dict[str, tuple[float, str]] = {}

    def whole(self, path: str) -> Iterator[memoryview]:
        """The bytes of an object, in order; each piece is good until the next is asked for."""
        buffer = memoryview(bytearray(_PIECE_BYTES))
        with self._answer(path, _WHOLE) as response, _failures_of(path):
            while count := response.readinto(buffer):
                yield buffer[:count]

    def part(self, path: str, start: int, end: int) -> bytes:
        """The bytes [start, end) of an object, fewer where it is shorter."""
        with self._answer(path, _PART, Range=f"bytes={start}-{end - 1}") as response, _failures_of(path):
            return response.read()

    @contextmanager
    def _answer(self, path: str, wanted: int, **headers: str) -> Iterator[urllib3.BaseHTTPResponse]:
        with _failures_of(path):
            response = self._pool.request(
                "GET", self._url(path), headers=headers, preload_content=False, decode_content=False
            )
        whole = False
        try:
            if response.status != wanted:
                raise PlainGetFailed(f"{path}: status {response.status}", known=response.status in _NOT_THERE)
            yield response
            whole = True
        finally:
            # A connection with something left on it is of no use to the next request.
            response.release_conn() if whole else response.close()

    def _url(self, path: str) -> str:
        until, url = self._signed.get(path, (0.0, ""))
        if until < time.monotonic():
            if len(self._signed) >= _MOST_SIGNED:
                self._signed = {}
            url = self._fs.sign(path, expiration=2 * _SIGNED_SECONDS)
            self._signed[path] = time.monotonic() + _SIGNED_SECONDS, url
        return url


@contextmanager
def _failures_of(path: str) -> Iterator[None]:
    try:
        yield
    except (urllib3.exceptions.HTTPError, BotoCoreError, OSError) as error:
        raise PlainGetFailed(f"{path}: {error}") from error
