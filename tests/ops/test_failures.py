"""What `sayso failures` shows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ops import show
from ops.failures import failures, show_failures
from sayso.errors import InputError
from sayso.root import Root
from tests.made import START, Copy, Other, failure, put, video


@pytest.fixture
def failed(root: Root) -> Root:
    """A root where things were dropped and failed in two stages."""
    put(root, [video(key) for key in "abcdefg"], "discover")
    put(root, [failure(key, "skip", "no_speech") for key in "gdcba"], "copy")
    put(root, [failure("e", "bug", "KeyError", message="Traceback:\n  line 1\nKeyError: 'x'\n", minute=9)], "copy")
    put(root, [failure("f", minute=1), failure("f", minute=3, message="")], "copy")
    put(root, [failure("a", "permanent", "http_404", stage="other"), failure("gone", stage="other")], "other")
    return root


def test_failures_are_grouped_with_the_first_examples(failed: Root) -> None:
    found = failures(failed, [Copy(failed), Other(failed)])
    assert [(group.stage, group.kind, group.reason, group.count) for group in found] == [
        ("copy", "skip", "no_speech", 5),
        ("copy", "bug", "KeyError", 1),
        ("copy", "retry", "http_429", 1),
        ("other", "permanent", "http_404", 1),
    ]
    assert [row.id for row in found[0].examples] == ["a", "b", "c"]
    assert found[1].examples[0].message.endswith("KeyError: 'x'\n")
    assert found[2].last == START + timedelta(minutes=3)


def test_what_is_shown_can_be_narrowed(failed: Root) -> None:
    stages = [Copy(failed), Other(failed)]
    assert [group.reason for group in failures(failed, stages, "other")] == ["http_404"]
    assert [group.reason for group in failures(failed, stages, kinds=["bug", "permanent"])] == ["KeyError", "http_404"]
    assert [group.count for group in failures(failed, stages, reasons=["no_speech"])] == [5]
    assert failures(failed, stages, kinds=["bug"], reasons=["no_speech"]) == []
    assert [len(group.examples) for group in failures(failed, stages, examples=10)] == [5, 1, 1, 1]
    assert [len(group.examples) for group in failures(failed, stages, examples=0)] == [0, 0, 0, 0]


def test_what_is_not_there_is_said_with_what_is(failed: Root) -> None:
    stages = [Copy(failed), Other(failed)]
    with pytest.raises(InputError, match=r"--stage fetch: no such stage \(there are discover, copy, other, plan\)"):
        failures(failed, stages, "fetch")
    with pytest.raises(InputError, match=r"--class http: no row has it \(there are KeyError, http_404, http_429, no_"):
        failures(failed, stages, reasons=["http_404", "http"])
    with pytest.raises(InputError, match=r"--kind poison: no row has it \(there are bug, permanent, retry, skip\)"):
        failures(failed, stages, kinds=["poison"])
    with pytest.raises(InputError, match="nothing was dropped and nothing failed"):
        failures(failed, stages, "discover", reasons=["http"])


def test_people_see_the_last_line_of_each_example(failed: Root) -> None:
    with show.out.capture() as captured:
        show_failures(failures(failed, [Copy(failed)]))
    printed = captured.get()
    assert "KeyError: 'x'" in printed
    assert "Traceback" not in printed
    assert "2026-01-02 03:07 UTC" in printed
    with show.out.capture() as captured:
        show_failures([])
    assert captured.get() == "nothing was dropped and nothing failed\n"
