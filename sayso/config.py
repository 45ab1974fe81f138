"""Settings: frozen pydantic models beside what they configure, read from YAML and overridden by `key=value`.

Unknown keys and wrong values are refused with the key's full name and what is allowed there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sayso.errors import ConfigError


class Settings(BaseModel):
    """Base of all settings: immutable, and closed to keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


def load(
    model: type[S], path: Path | None = None, overrides: Sequence[str] = (), *, base: Mapping[str, Any] | None = None
) -> S:
    """Settings from a YAML file (else from `base`, else the defaults) with `a.b=value` overrides laid over it.

    Raises ConfigError with the key's name and what is allowed.
    """
    data = read_yaml(path) if path else copy.deepcopy(dict(base or {}))
    for override in overrides:
        _lay_over(data, override)
    return validate(model, data, source=str(path) if path else "the command line")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError where there is none."""
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, found a {type(data).__name__}")
    return data


def _lay_over(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{override!r}: an override is written key=value, for example fetch.short_side=256")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {parent} is a value, it has no keys of its own")
        data = inner
    data[leaf] = value


def validate(model: type[S], data: Mapping[str, Any], source: str) -> S:
    """`data` as settings of `model`; ConfigError names each wrong key of `source` and what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_explain(model, problem["type"], problem["loc"], problem["msg"]) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from None


def _explain(model: type[BaseModel], kind: str, location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        parent = _model_at(model, location[:-1])
        allowed = ", ".join(parent.model_fields) if parent else "no keys"
        return f"unknown key {name} (allowed here: {allowed})"
    return f"{name}: {message[0].lower()}{message[1:]}" if name else message


def _model_at(model: type[BaseModel], location: Iterable[int | str]) -> type[BaseModel] | None:
    """The settings class at a place in the tree; indices of lists and tags of unions are passed over."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or not isinstance(part, str) or part not in current.model_fields:
            continue
        current = nested_model(current.model_fields[part].annotation)
    return current


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as `X`, `X | None` or `list[X]`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := nested_model(arg))), None)
