"""No connection into the network we stand in, whoever asks for it.

Looking at a URL before it is asked is not enough: a redirect or a name server can lead elsewhere. An audit hook of
the interpreter sees every address that is really connected to. It cannot be removed, so it does nothing but inside
`public_only`, and only in the thread that is there.
"""

import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ingest.addresses import is_public
from sayso.errors import Permanent

_here = threading.local()


class PrivateAddress(Permanent, PermissionError):
    """An OSError too, so that whoever wanted the connection closes its socket as after any refusal."""

    def __init__(self, message: str) -> None:
        super().__init__("private_address", message)


@contextmanager
def public_only() -> Iterator[None]:
    """Within this, connecting to a private address raises Permanent("private_address")."""
    before = getattr(_here, "on", False)
    _here.on = True
    try:
        yield
    finally:
        _here.on = before


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not getattr(_here, "on", False):
        return
    connection, address = arguments
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        raise PrivateAddress("a socket of this machine is no web address")
    host = str(address[0]).partition("%")[0]
    if not is_public(ipaddress.ip_address(host)):
        raise PrivateAddress(f"{host} is a private address; allow_private: true allows it")


sys.addaudithook(_look)
