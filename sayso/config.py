"""Settings: frozen pydantic models beside what they configure, read from YAML and overridden by `key=value`.

Unknown keys and wrong values are refused with the key's full name and what is allowed there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

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
        raise ConfigError(
            f"{override!r}: an override is written key=value, as fetch.profile.crf=18 or schedule.steps=100"
        )
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


def named(default: str) -> BeforeValidator:
    """Beside Field(discriminator="name") of a choice of settings: without a name it is the `default` one."""
    return BeforeValidator(lambda value: {"name": default, **value} if isinstance(value, dict) else value)


def _explain(model: type[BaseModel], kind: str, location: tuple[int | str, ...], message: str) -> str:
    unknown = kind == "extra_forbidden"
    names, parent = _find(model, location[:-1] if unknown else location)
    if unknown:
        allowed = ", ".join(parent.model_fields) if parent else "no keys"
        return f"unknown key {'.'.join([*names, str(location[-1])])} (allowed here: {allowed})"
    name = ".".join(names)
    return f"{name}: {message[0].lower()}{message[1:]}" if name else message


def _find(model: type[BaseModel], location: Iterable[int | str]) -> tuple[list[str], type[BaseModel] | None]:
    """A place in the tree as its keys are written, and the settings class there.

    Of a choice pydantic's places also have the name that was chosen. Indices of lists are passed over.
    """
    names, there = [], [model]
    for part in location:
        chosen = [each for each in there if len(there) > 1 and each.model_fields["name"].default == part]
        if chosen:
            there = chosen
            continue
        names.append(str(part))
        if there and isinstance(part, str) and part in there[0].model_fields:
            there = nested_models(there[0].model_fields[part].annotation)
    return names, there[0] if there else None


def nested_models(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes inside an annotation such as `X`, `X | None`, `list[X]` or a choice, `X | Y`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in nested_models(argument)]
