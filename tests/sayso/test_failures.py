"""What is counted of failures, whatever their number, and how they are taken back."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from sayso.engine.failures import ask_again, chosen, newest_failures, with_messages
from sayso.engine.inputs import look, open_failures, stage_tally
from sayso.errors import StorageError
from sayso.root import Root
from sayso.rows import Plan, Row, Shard, Video, now
from sayso.sql import text
from sayso.stage import Stage
from tests.made import Copy, failure, put, video


class Some(Copy):
    """A stage that says itself what its inputs are."""

    def input_keys(self) -> Iterator[str]:
        return iter(["a", "b", "elsewhere"])


class Chunked(Copy):
    def input_keys(self) -> Any:
        return pa.chunked_array([["a"], ["b", "elsewhere"]])


class OfPlans(Stage[Plan, Shard]):
    name = "of_plans"
    reads = Plan
    writes = Shard

    def __call__(self, row: Plan) -> Sequence[Shard]:
        return []


def test_the_newest_failure_is_that_of_the_latest_time_and_then_of_most_attempts(root: Root) -> None:
    chance = random.Random(7)
    rows = [
        failure(
            f"v{chance.randrange(60)}", chance.choice(["skip", "retry", "permanent", "bug", "again"]),
            chance.choice(["no_speech", "http_429"]), chance.randrange(8), attempts=number,
            stage=chance.choice(["copy", "copy", "other"]),
        )
        for number in range(400)
    ]  # fmt: skip
    put(root, rows[:150], "copy")
    put(root, rows[150:], "copy")
    expected = {}
    for row in sorted(rows, key=lambda row: (row.when, row.attempts)):
        if row.stage == "copy":
            expected[row.id] = row
    found = newest_failures(root, "copy", messages=True).to_pylist()
    assert len(found) == len({row["id"] for row in found})
    columns = ("id", "kind", "reason", "attempts", "when", "not_before", "message")
    assert {row["id"]: row for row in found} == {
        key: {column: getattr(row, column) for column in columns}
        for key, row in expected.items()
        if row.kind != "again"
    }
    assert any(row.kind == "again" for row in expected.values())


def test_without_any_table_nothing_failed_and_nothing_is_settled(root: Root) -> None:
    assert newest_failures(root, "copy").num_rows == 0
    assert newest_failures(root, "copy").schema.field("id").type == pa.string()
    assert look(root, Copy(root)).ready == []
    assert (stage_tally(root, Copy(root)).total, open_failures(root, Copy(root)).num_rows) == (0, 0)


class Gated(Copy):
    name = "gated"
    after: ClassVar[Mapping[str, type[Row]]] = {"copy": Video}


def test_a_key_is_ready_once_the_stage_before_has_done_it_given_up_or_met_a_bug(root: Root) -> None:
    kinds = ("skip", "permanent", "poison", "bug", "retry")
    put(root, [failure(kind, kind) for kind in kinds], "copy")
    put(root, [failure("taken back", "permanent"), failure("taken back", "again", minute=1)], "copy")
    put(root, [video("done"), video("poison")], "copy")
    put(root, [video("by another")], "other")
    put(root, [failure("of another", "skip", stage="other")], "other")
    names = [*kinds, "taken back", "by another", "of another", "done"]
    put(root, [video(name) for name in names], "discover")
    found = look(root, Gated(root))
    assert set(found.ready) == {"bug", "done", "permanent", "poison", "skip"}
    put(root, [failure("skip", "skip", stage="gated"), failure("bug", "bug", stage="gated")], "gated")
    put(root, [video("done")], "gated")
    assert set(look(root, Gated(root)).ready) == {"bug", "permanent", "poison"}


def test_only_inputs_that_are_not_done_since_count_as_failed(root: Root) -> None:
    put(root, [video(key) for key in "abcdefg"], "discover")
    put(root, [video("copy of a"), video("another of a")], "copy", "a")
    put(root, [video("not an input")], "copy", "x")
    put(root, [failure("a", "retry"), failure("b", "skip", "no_speech"), failure("c", "permanent", "http_404")], "copy")
    put(root, [failure("d"), failure("d", "permanent", "http_404", minute=1), failure("y")], "copy")
    put(root, [failure("e"), failure("e", "again", minute=1)], "copy")
    stage = Copy(root)
    tally = stage_tally(root, stage)
    # The rows that `copy` wrote are videos too, and so inputs.
    assert (tally.total, tally.done, tally.pending) == (10, 1, 6)
    assert (tally.skipped, tally.failed) == (Counter(no_speech=1), Counter(http_404=2))
    assert sorted(open_failures(root, stage)["id"].to_pylist()) == ["b", "c", "d"]


@pytest.mark.parametrize("kind", [Some, Chunked])
def test_a_stage_may_say_itself_what_its_inputs_are(root: Root, kind: type[Copy]) -> None:
    put(root, [video("a")], "copy")
    put(root, [failure("b", "skip", "no_speech"), failure("c"), failure("elsewhere")], "copy")
    tally = stage_tally(root, kind(root))
    assert (tally.total, tally.done, tally.pending) == (3, 1, 0)
    assert (tally.skipped, tally.failed) == (Counter(no_speech=1), Counter(http_429=1))


def test_keys_of_several_columns_have_slashes(root: Root) -> None:
    plans = [Plan(export="clips", shard=f"train-{number}", split="train", version=1, samples=[]) for number in range(3)]
    put(root, plans, "plan", "tables")
    put(root, [failure("clips/train-2", "permanent", "corrupt_proxy", stage="of_plans")], "of_plans")
    tally = stage_tally(root, OfPlans(root))
    assert (tally.total, tally.pending, tally.failed) == (3, 2, Counter(corrupt_proxy=1))


def test_a_tally_counts_and_takes_back(root: Root) -> None:
    tally = stage_tally(root, Copy(root))
    tally.total = 5
    tally.count("skip", "no_speech", by=2)
    tally.count("retry", "http_429")
    assert tally.pending == 2
    tally.count("retry", "http_429", by=-1)
    assert (tally.skipped, tally.failed, tally.pending) == (Counter(no_speech=2), Counter(), 3)


def test_asking_again_makes_rows_pending_though_the_clock_went_ahead(root: Root) -> None:
    put(root, [video("a"), video("b"), video("c")], "discover")
    ahead = now() + timedelta(hours=1)
    put(root, [failure("a", "permanent", when=ahead), failure("b"), failure("c", "skip", "no_speech")], "copy")
    stage = Copy(root)
    failed = open_failures(root, stage)
    assert ask_again(root, "copy", chosen(failed, reasons=["http_429"])) == 2
    assert [row["id"] for row in newest_failures(root, "copy").to_pylist()] == ["c"]
    assert stage_tally(root, stage).pending == 2
    put(root, [failure("b", "permanent", "http_404", when=now())], "copy")
    assert stage_tally(root, stage).failed == Counter(http_404=1)


def test_failures_are_chosen_by_all_that_is_asked_for(root: Root) -> None:
    rows = [failure("a", "skip"), failure("b", "skip", "no_speech"), failure("c", "permanent")]
    put(root, rows, "copy")
    found = newest_failures(root, "copy")

    def ids(**asked: list[str]) -> list[str]:
        return sorted(chosen(found, **asked)["id"].to_pylist())

    assert ids() == ["a", "b", "c"]
    assert ids(kinds=["skip"]) == ["a", "b"]
    assert ids(kinds=["skip", "permanent"], reasons=["http_429"]) == ["a", "c"]
    assert ids(ids=["c", "z"], kinds=["skip"]) == []


def test_the_rows_themselves_can_be_had_for_a_few_ids(root: Root) -> None:
    rows = [failure("it's a", message="why\nso"), failure("b")]
    put(root, rows, "copy")
    assert with_messages(root, "copy", ["it's a", "unknown"]) == {"it's a": rows[0]}
    assert with_messages(root, "copy", []) == {}


def test_a_quote_in_a_text_stays_in_the_text() -> None:
    assert text("it's' OR true --") == "'it''s'' OR true --'"


def test_tables_that_cannot_be_read_are_named(root: Root) -> None:
    put(root, [failure("a")], "copy")
    (file,) = Path(root.url).glob("tables/failures/*.parquet")
    file.unlink()
    with pytest.raises(StorageError, match="tables: cannot be read"):
        newest_failures(root, "copy")
    log = max(Path(root.url).glob("tables/failures/_delta_log/*.json"))
    log.write_text("no log")
    with pytest.raises(StorageError, match="failures: cannot be opened"):
        newest_failures(root, "copy")
