"""Settings refuse what nobody reads, with the key's name and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from sayso.config import Settings, load, validate
from sayso.errors import ConfigError


class Inner(Settings):
    size: int = Field(1, ge=1)
    name: str = ""


class Outer(Settings):
    inner: Inner = Inner()
    many: list[Inner] = Field([])
    flag: bool = False


def test_overrides_lie_over_the_file_which_lies_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("inner: {size: 3, name: from-file}\nflag: true\n")
    settings = load(Outer, path, ["inner.size=7"])
    assert (settings.inner.size, settings.inner.name, settings.flag) == (7, "from-file", True)
    assert load(Outer).inner.size == 1


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("# nothing yet\n")
    assert load(Outer, tmp_path / "p.yaml") == Outer()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("inner.colour=red", r"unknown key inner\.colour \(allowed here: size, name\)"),
        ("colour=red", r"unknown key colour \(allowed here: inner, many, flag\)"),
        ("inner.size=zero", r"inner\.size: input should be a valid integer"),
        ("inner.size=0", r"inner\.size: input should be greater than or equal to 1"),
        ("flag.deep=1", r"flag\.deep|flag: input should be"),
        ("inner", r"an override is written key=value"),
        ("=3", r"an override is written key=value"),
        ("many=[{colour: red}]", r"unknown key many\.0\.colour \(allowed here: size, name\)"),
    ],
)
def test_what_is_wrong_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(Outer, None, [override])
    assert "\n" not in str(caught.value)


def test_a_value_has_no_keys_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("flag: true\n")
    with pytest.raises(ConfigError, match=r"flag is a value"):
        load(Outer, tmp_path / "p.yaml", ["flag.deep=1"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("inner: [", "not YAML"), ("- a\n- b\n", "expected keys and values"), ("\x00", "not YAML")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(Outer, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load(Outer, tmp_path / "nowhere.yaml")


def test_the_source_of_the_mistake_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^somewhere: unknown key x"):
        validate(Outer, {"x": 1}, "somewhere")
