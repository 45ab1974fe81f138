"""The site on a socket: HTTP/1.1 with kept connections and byte ranges, by the standard library's server."""

import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from demo.site.site import Reply, Site

_CHUNK_BYTES = 1 << 16


class SiteServer(ThreadingHTTPServer):
    """Serves one `Site`; closing it ends every connection and waits for every thread."""

    daemon_threads = False

    def __init__(self, site: Site, host: str, port: int) -> None:
        self.site = site
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)
        self.base_url = f"http://{host}:{self.server_address[1]}"

    def note_open(self, connection: socket.socket) -> None:
        """Remember a connection, so that closing the server can end it while its client keeps it."""
        with self._lock:
            self._open.add(connection)

    def note_closed(self, connection: socket.socket) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._open.discard(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Report what went wrong in a request, unless only the client went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # passed on as it came

    def server_close(self) -> None:
        """End the kept connections, then wait for their threads and close the listening socket."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sayso-demo"
    timeout = 60
    server: SiteServer

    def setup(self) -> None:
        super().setup()
        self.server.note_open(self.connection)

    def finish(self) -> None:
        self.server.note_closed(self.connection)
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        self._answer(self.server.site.reply(self.path, base_url=self._base_url()), with_body=True)

    def do_HEAD(self) -> None:
        self._answer(self.server.site.reply(self.path, base_url=self._base_url(), counts=False), with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: requests are the client's business."""

    def _base_url(self) -> str:
        host = self.headers.get("Host", "")
        return f"http://{host}" if re.fullmatch(r"[\w.\-\[\]:]+", host) else self.server.base_url

    def _answer(self, reply: Reply, *, with_body: bool) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            if reply.file is None:
                self._send_text(reply, with_body=with_body)
            else:
                self._send_file(reply, reply.file, with_body=with_body)

    def _send_text(self, reply: Reply, *, with_body: bool) -> None:
        body = reply.body.encode()
        self._send_head(reply.status, reply.content_type, len(body), dict(reply.headers))
        if with_body:
            self.wfile.write(body)

    def _send_file(self, reply: Reply, path: Path, *, with_body: bool) -> None:
        span = _byte_range(self.headers.get("Range"), reply.length)
        if span is None:
            self._send_head(HTTPStatus.OK, reply.content_type, reply.length, {"Accept-Ranges": "bytes"})
            span = (0, reply.length)
        elif span[0] >= span[1]:
            self._send_head(416, reply.content_type, 0, {"Content-Range": f"bytes */{reply.length}"})
            return
        else:
            named = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {span[0]}-{span[1] - 1}/{reply.length}"}
            self._send_head(HTTPStatus.PARTIAL_CONTENT, reply.content_type, span[1] - span[0], named)
        if with_body:
            self._send_bytes(path, *span)

    def _send_head(self, status: int, content_type: str, length: int, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(length), **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_bytes(self, path: Path, start: int, end: int) -> None:
        with path.open("rb") as file:
            file.seek(start)
            left = end - start
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                self.wfile.write(chunk)
                left -= len(chunk)


def _byte_range(header: str | None, length: int) -> tuple[int, int] | None:
    """Return the half-open byte span that a Range header asks for, empty if it cannot be had; None for the whole.

    Several ranges in one header, and headers that are not understood, mean the whole (RFC 9110, 14.2).
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "", re.ASCII)
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return max(0, length - int(last)), length
    if last and int(last) < int(first):
        return None
    return int(first), min(length, int(last) + 1) if last else length


@contextmanager
def serve(world_dir: Path, port: int = 0, *, host: str = "127.0.0.1", flaky_failures: int = 2) -> Iterator[str]:
    """Serve a rendered world from a thread and yield the site's base URL ("http://127.0.0.1:PORT", no final slash).

    port: 0 takes a free one. flaky_failures: 503 answers of the flaky video's file before it is given out; with
    yt-dlp's own retries below that, the caller's retries are needed too.
    Errors: OSError if the port is taken, FileNotFoundError if world_dir has no world.json.
    """
    server = SiteServer(Site(world_dir, flaky_failures=flaky_failures), host, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-site")
    thread.start()
    try:
        yield server.base_url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
