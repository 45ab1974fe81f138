"""A real HTTP proxy before a real server that, by a script, answers 503, waits, breaks connections or is away.

    with FaultyProxy(server.endpoint) as proxy:
        os.environ.update(client_environment(proxy.endpoint))
        proxy.script(Rule("slow_down", share=0.3), seed=1)

It is a process of its own: deltalake holds the interpreter's lock while it waits for some answers, so that a proxy in
the same process would never give them. Each request takes a connection of its own on both sides, so that a broken
one harms one request.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.seaweed import free_ports

Fault = Literal["slow_down", "error", "full", "delay", "drop_request", "drop_answer", "lose_answer", "hold"]
"""What can be done to a request: an answer of 503, 500 or 507 instead of the server's; the server's answer later; half
the request passed on and the connection broken; half the answer passed back and the connection broken; the
request passed on whole and the connection broken instead of an answer; nothing passed on and nothing answered for as
long as the client waits."""

_ANSWERS = {
    "slow_down": (503, "SlowDown"),
    "error": (500, "InternalError"),
    "full": (507, "XMinioStorageFull"),
}
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Rule:
    """One fault for a share of the requests that look so: of this method, with this in the target, of this length."""

    fault: Fault
    share: float = 1.0
    method: str = ""
    target: str = ""
    least_bytes: int = 0
    times: int | None = None

    def fits(self, method: str, target: str, length: int) -> bool:
        """Whether it is about this request."""
        return self.method in ("", method) and self.target in target and length >= self.least_bytes


class FaultyProxy:
    """A proxy before the server at `endpoint`, untouched until it is given a script."""

    def __init__(self, endpoint: str, delay: float = 1.0) -> None:
        self._port = free_ports(1)[0]
        self._command = [sys.executable, "-m", "tests.faults", endpoint, str(self._port), str(delay)]
        self._process: subprocess.Popen[str] | None = None

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FaultyProxy:
        repository = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(
            self._command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()  # it ends by itself, too, when its standard input does
        self._process.communicate()

    def script(self, *rules: Rule, seed: int = 0) -> None:
        """Do this to requests from now on: the first rule that fits and is drawn. No rules: nothing."""
        self._say("script", rules=[asdict(rule) for rule in rules], seed=seed)

    def away(self, seconds: float | None = None) -> None:
        """Refuse connections and break those that are open, for some seconds or until `back`."""
        self._say("away", seconds=seconds)

    def back(self) -> None:
        """Take connections (again), on the same port."""
        self._say("back")

    @property
    def made(self) -> Counter[str]:
        """How often each fault was made since the start."""
        return Counter(self._say("count"))

    def _say(self, word: str, **details: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"word": word, **details}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class _Proxy:
    """The proxy itself, in its own process."""

    def __init__(self, endpoint: str, port: int, delay: float) -> None:
        self._upstream = urlsplit(endpoint)
        self._port, self._delay = port, delay
        self._rules: list[tuple[Rule, random.Random]] = []
        self._left: Counter[Rule] = Counter()
        self._made: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._return: asyncio.Task[None] | None = None

    async def obey(self, word: str, **details: Any) -> Any:
        """Do what the other process asks for."""
        if word == "script":
            rules = [Rule(**rule) for rule in details["rules"]]
            self._rules = [(rule, random.Random(f"{details['seed']} {rule}")) for rule in rules]
            self._left = Counter({rule: rule.times for rule in rules if rule.times is not None})
        elif word == "away":
            self._away()
            if details["seconds"] is not None:
                self._return = asyncio.create_task(self._back_after(details["seconds"]))
        elif word == "back":
            await self._back()
        return dict(self._made)

    async def _back(self) -> None:
        assert self._server is None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _back_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._back()

    def _away(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            _broken(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                fault = self._drawn(head)
                if fault is not None:
                    self._made[fault] += 1
                await self._answer(head, fault, reader, writer)
        finally:
            self._open.discard(writer)
            _broken(writer)

    def _drawn(self, head: bytes) -> Fault | None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        for rule, draw in self._rules:
            if rule.fits(method, target, _length(head)) and draw.random() < rule.share:
                if rule.times is not None:
                    if not self._left[rule]:
                        continue
                    self._left[rule] -= 1
                return rule.fault
        return None

    async def _answer(
        self, head: bytes, fault: Fault | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if _header(head, b"expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault in _ANSWERS:
            await reader.readexactly(_length(head))
            writer.write(_refusal(*_ANSWERS[fault]))
            await _flushed(writer)
            return
        if fault == "hold":
            while await reader.read(_CHUNK_BYTES):
                pass
            return
        up_reader, up_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        self._open.add(up_writer)
        try:
            up_writer.write(_closing(head))
            wanted = _length(head) // 2 if fault == "drop_request" else _length(head)
            await _copy(reader, up_writer, wanted)
            if fault == "drop_request":
                return
            if fault == "delay":
                await asyncio.sleep(self._delay)
            answer = await up_reader.readuntil(b"\r\n\r\n")
            if fault == "lose_answer":
                return
            writer.write(_closing(answer))
            await _copy(up_reader, writer, _length(answer) // 2 if fault == "drop_answer" else None)
            if fault != "drop_answer":
                await _flushed(writer)
        finally:
            self._open.discard(up_writer)
            _broken(up_writer)


def _length(head: bytes) -> int:
    return int(_header(head, b"content-length") or 0)


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    return b""


def _closing(head: bytes) -> bytes:
    """A head that says that the connection ends with this message, and asks for no leave to send the body."""
    lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].lower() not in (b"connection", b"expect")]
    return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n"


def _refusal(status: int, code: str) -> bytes:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>by script</Message></Error>'
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n{body}".encode()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None) -> None:
    """Copy so many bytes, or all until the end."""
    left = length
    while left is None or left > 0:
        chunk = await reader.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
        if not chunk:
            if left:
                raise asyncio.IncompleteReadError(b"", left)
            break
        left = left - len(chunk) if left is not None else None
        writer.write(chunk)
        await writer.drain()


async def _flushed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _broken(writer: asyncio.StreamWriter) -> None:
    """Break a connection, unless it has ended in order."""
    if not writer.transport.is_closing():
        writer.transport.abort()


async def _main(arguments: Sequence[str]) -> None:
    endpoint, port, delay = arguments
    proxy = _Proxy(endpoint, int(port), float(delay))
    while line := await asyncio.to_thread(sys.stdin.readline):
        sys.stdout.write(json.dumps(await proxy.obey(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
