"""Arrow schemas from row models, and rows to and from Arrow."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel

from sayso.rows import Row

R = TypeVar("R", bound=Row)

# Beside its own columns every row says which stage made it and from which input: what is done is read off the
# results themselves, so that a result and the mark that it is done can never disagree.
MADE_BY = "made_by"
MADE_FROM = "made_from"

_SCALARS: dict[type, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("us", "UTC"),
}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """The Arrow type of an annotation, and whether it may be null."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        assert len(inner) == 1, f"only X | None has an Arrow type, not {annotation}"
        return _arrow_type(inner[0])[0], True
    if origin is Literal:
        return pa.string(), False
    if origin is list:
        return pa.list_(_arrow_type(get_args(annotation)[0])[0]), False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(_fields(annotation)), False
    return _SCALARS[annotation], False


def _fields(model: type[BaseModel]) -> list[pa.Field]:
    fields = []
    for name, info in model.model_fields.items():
        kind, nullable = _arrow_type(info.annotation)
        fields.append(pa.field(name, kind, nullable=nullable))
    return fields


@cache
def schema(model: type[Row]) -> pa.Schema:
    """The Arrow schema of a table: the columns of its model and who made the row from what."""
    marks = [pa.field(MADE_BY, pa.string(), nullable=False), pa.field(MADE_FROM, pa.string(), nullable=False)]
    return pa.schema([*_fields(model), *marks])


def to_arrow(model: type[Row], records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Records (dumped rows with their marks) as an Arrow table of the model's schema."""
    return pa.Table.from_pylist(list(records), schema=schema(model))


def from_arrow(model: type[R], table: pa.Table) -> Iterator[R]:
    """The rows of an Arrow table that has the model's columns."""
    names = list(model.model_fields)
    for record in table.select(names).to_pylist():
        yield model.model_validate(record)
