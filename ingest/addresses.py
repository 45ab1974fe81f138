"""Which addresses may be asked: http and https, and nothing inside the network unless that is allowed.

A list, a feed or a page is written by strangers; without this check it could make a worker ask the machines around it
(server-side request forgery).
"""

import ipaddress
import socket
from urllib.parse import urlsplit


def why_not_web(url: str) -> str | None:
    """Return why `url` is not a usable web address, or None if it is one. Asks no name server."""
    if any(character.isspace() or not character.isprintable() for character in url):
        return "not a URL"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "not a URL"
    if parts.scheme.lower() not in ("http", "https"):
        return "not an http(s) URL"
    if not host:
        return "a URL without a host"
    try:
        host.encode("idna")
    except UnicodeError:
        return "a URL with a host that no name server knows"
    return None


def is_private_name(url: str) -> bool:
    """Whether the host is written as a private address or a local name. Asks no name server."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    address = _literal(host)
    return address is not None and not is_public(address)


def leads_to_private(url: str) -> bool:
    """Whether any address of the host is private, asking the name server; False where the host has no address."""
    if is_private_name(url):
        return True
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(not is_public(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the open internet, also when it is an IPv4 address inside an IPv6 one."""
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None:
        return is_public(mapped)
    return address.is_global and not address.is_multicast


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # Short and numeric forms (127.1, 2130706433, 0x7f.1) reach the same machine.
        return ipaddress.ip_address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None
