"""The pages of docs/ that are written by the code; a test checks that they are true.

python -m ops.docs FOLDER
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sayso.config import nested_models

_MADE = "<!-- Written by `make docs`; do not edit. -->"


def configuration() -> str:
    """docs/configuration.md: every key of a pipeline and of a recipe, with its type, default and meaning."""
    from ops.pipeline import Pipeline
    from train.recipe import Recipe

    return "\n".join(
        [
            "# Configuration",
            "",
            _MADE,
            "",
            "Every key can stand in a YAML file and be overridden on the command line as `key=value`.",
            "Unknown keys and wrong values are refused with the key's name and what is allowed.",
            "",
            "## A pipeline: `sayso run --config pipeline.yaml`",
            "",
            *_table(Pipeline),
            "",
            "## A recipe: `sayso train recipe.yaml`",
            "",
            *_table(Recipe),
            "",
        ]
    )


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    yield from _rows(model, "")


def _rows(model: type[BaseModel], prefix: str, only: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _rows(field.annotation, f"{key}.", only)
        elif field.discriminator:
            yield from _choice(field, f"{key}.")
        else:
            yield f"| `{key}` | {_type(field)} | {_default(field)} | {only}{field.description or ''} |"


def _choice(field: FieldInfo, prefix: str) -> Iterator[str]:
    """The keys of a choice between settings, which have a name each: those of each in turn, its name first."""
    chosen = field.get_default(call_default_factory=True)
    choices = {str(each.model_fields["name"].default): each for each in nested_models(field.annotation)}
    meanings = "; ".join(f"{name}: {each.model_fields['name'].description}" for name, each in choices.items())
    names = ", ".join(f"'{name}'" for name in choices)
    yield f"| `{prefix}name` | `Literal[{names}]` | `{chosen.name}` | {meanings} |"
    for name, each in choices.items():
        rows = _rows(each, prefix, f"({name}) ")
        next(rows)  # the name
        yield from rows


_LIMITS = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}


def _type(field: FieldInfo) -> str:
    name = inspect.formatannotation(field.annotation)
    for noise in ("typing.", "pathlib.", "NoneType"):
        name = name.replace(noise, "")
    limits = [
        f"{sign}{getattr(limit, key):g}"
        for limit in field.metadata
        for key, sign in _LIMITS.items()
        if hasattr(limit, key)
    ]
    return "`" + ", ".join([name, *limits]).replace("|", "\\|") + "`"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*needed*"
    value: Any = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = yaml.safe_dump(value if not isinstance(value, tuple) else list(value), default_flow_style=True)
    return "`" + text.removesuffix("...\n").strip().replace("|", "\\|") + "`"


def commands() -> str:
    """docs/commands.md: the --help of every command."""
    from typer.testing import CliRunner

    from ops.cli import app

    names = [["--help"], *([name, "--help"] for name in _names(app))]
    for group in app.registered_groups:
        assert group.name and group.typer_instance
        names += [[group.name, name, "--help"] for name in _names(group.typer_instance)]
    parts = ["# Commands", "", _MADE, ""]
    for name in names:
        result = CliRunner().invoke(app, name, prog_name="sayso", env={"COLUMNS": "110", "TERM": "dumb"})
        text = "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())
        parts += [f"## sayso {' '.join(name[:-1])}".rstrip(), "", "```", text, "```", ""]
    return "\n".join(parts)


def _names(app: typer.Typer) -> list[str]:
    """The commands of an app or of a group."""
    return [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]  # one of both is there


PAGES = {"configuration.md": configuration, "commands.md": commands}


def main(folder: Path) -> None:
    """Write all pages into a folder."""
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
