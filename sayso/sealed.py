"""Small objects that no row vouches for carry the SHA-256 of themselves: settings in JSON, configurations in YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sayso.errors import CorruptObject

SEAL = "sha256"
_LINE = b"# sha256 of the lines above: "


def sealed_json(data: Mapping[str, Any]) -> bytes:
    """A mapping as JSON with the SHA-256 of the rest under `sha256`; the same mapping gives the same bytes."""
    digest = hashlib.sha256(_dumped(data)).hexdigest()
    return _dumped({**data, SEAL: digest})


def opened_json(text: bytes, key: str) -> dict[str, Any]:
    """The mapping that was sealed; CorruptObject where a byte of the text is another one."""
    try:
        data = json.loads(text)
    except ValueError:
        raise CorruptObject(f"{key}: not JSON") from None
    if not isinstance(data, dict) or SEAL not in data:
        raise CorruptObject(f"{key}: carries no checksum")
    del data[SEAL]
    if sealed_json(data) != text:
        raise CorruptObject(f"{key}: not the bytes that its checksum is of")
    return data


def sealed_lines(text: bytes) -> bytes:
    """Lines (of YAML) with their SHA-256 in a comment below."""
    return text + _LINE + hashlib.sha256(text).hexdigest().encode() + b"\n"


def check_lines(text: bytes, key: str) -> None:
    """CorruptObject where lines are not those that were sealed."""
    if sealed_lines(text[: text.rfind(_LINE)] if _LINE in text else b"") != text:
        raise CorruptObject(f"{key}: not the bytes that its checksum is of")


def _dumped(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()
