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
    """Records (dumped rows with their marks) as an Arrow table of the model's schema; ValueError where one is not."""
    table = pa.Table.from_pylist(list(records), schema=schema(model))
    for field, column in zip(table.schema, table.columns, strict=True):
        _check_nulls(field, column.combine_chunks(), field.name)
    return table


def _check_nulls(field: pa.Field, values: pa.Array, path: str) -> None:
    if values.null_count and not field.nullable:
        raise ValueError(f"{path} is None in {values.null_count} rows, and may not be")
    if pa.types.is_list(field.type):
        _check_nulls(field.type.value_field.with_nullable(True), values.flatten(), path)
    elif pa.types.is_struct(field.type):
        given = values.drop_null()
        for place, inner in enumerate(field.type):
            _check_nulls(inner, given.field(place), f"{path}.{inner.name}")


def from_arrow(model: type[R], rows: pa.Table | pa.RecordBatch) -> Iterator[R]:
    """The rows of an Arrow table or batch that has the model's columns."""
    names = list(model.model_fields)
    for record in rows.select(names).to_pylist():
        yield model.model_validate(record)


def fitted(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """A batch with the wanted columns in their types; those that it lacks are null."""
    there = set(batch.schema.names)
    columns = [
        batch[field.name].cast(field.type) if field.name in there else pa.nulls(batch.num_rows, field.type)
        for field in wanted
    ]
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def missing(wanted: Iterable[pa.Field], there: Iterable[pa.Field], within: str = "") -> dict[str, bool]:
    """The wanted columns, and parts of columns, that are not there, each with whether it may be null."""
    found = {field.name: field for field in there}
    lacking: dict[str, bool] = {}
    for field in wanted:
        path = f"{within}{field.name}"
        if field.name in found:
            lacking |= missing(_parts(field.type), _parts(found[field.name].type), f"{path}.")
        else:
            lacking[path] = field.nullable
    return lacking


def _parts(kind: pa.DataType) -> list[pa.Field]:
    if pa.types.is_list(kind):
        return _parts(kind.value_type)
    return list(kind) if pa.types.is_struct(kind) else []
