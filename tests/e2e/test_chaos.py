"""Rounds of `make chaos`: whatever is killed, the data set is that of an undisturbed run. See tests/chaos.py."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chaos import KINDS, Blow, Chaos, chaos, differences

SEED = os.environ.get("SAYSO_CHAOS_SEED", "7")
ROUNDS = [*KINDS, "driver", "node"]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    """The demo site, an S3 server, a cluster of two nodes, and an undisturbed run."""
    with chaos(tmp_path_factory.mktemp("chaos")) as found:
        yield found


def test_the_undisturbed_run_made_something_of_every_kind(surroundings: Chaos) -> None:
    tables = {name: value for name, value in surroundings.expected.items() if name.startswith("table ")}
    assert len(tables) == 6
    assert not [name for name, value in tables.items() if value.startswith("0 rows")]
    assert [name for name in surroundings.expected if name.endswith(".tar")]
    assert "duplicate" in surroundings.expected["failures of plan"]
    assert "http_404" in surroundings.expected["failures of fetch"]


@pytest.mark.parametrize("number", range(len(ROUNDS)), ids=[f"{kind}-{i}" for i, kind in enumerate(ROUNDS)])
def test_a_disturbed_run_ends_with_what_an_undisturbed_one_makes(number: int, surroundings: Chaos) -> None:
    result = surroundings.round(f"{SEED}/{number}", ROUNDS[number])
    replay = f"python -m tests.chaos --replay {SEED}/{number} --only {ROUNDS[number]}"
    assert result.struck, f"nothing was there to be struck: {result}"
    assert not result.differences, f"{result}\nreplay it with: {replay}\n{result.printed}"


def test_blows_are_those_of_the_name_alone(surroundings: Chaos) -> None:
    blows = surroundings.blows("7/3", "worker")
    assert blows == surroundings.blows("7/3", "worker") != surroundings.blows("7/4", "worker")
    assert any(isinstance(blow, Blow) and blow.kind == "worker" for blow in blows)


def test_a_difference_is_named() -> None:
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": ""}) == ["b", "c"]
