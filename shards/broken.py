"""What may be wrong with a stored sample, in words that somebody can count."""

from __future__ import annotations

from typing import Literal, get_args

from sayso.errors import CorruptObject

Kind = Literal[
    "missing_tar", "short_tar", "checksum", "missing_index", "bad_index", "repeated_key", "bad_json", "undecodable"
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class BrokenSample(CorruptObject):
    """A sample that cannot be had: its shard, its index or its own bytes are not what they should be."""

    def __init__(self, kind: Kind, message: str) -> None:
        self.kind: Kind = kind
        super().__init__(message)


def kind_of(error: CorruptObject) -> Kind:
    """The kind to count an error under; what is whole and yet of no use is `undecodable`."""
    return error.kind if isinstance(error, BrokenSample) else "undecodable"
