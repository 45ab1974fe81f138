"""What was dropped or could not be done, grouped by stage and class with examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel

from ops import show
from sayso.engine.ledger import newest_failures
from sayso.root import Root
from sayso.rows import Failure

_EXAMPLES = 3


class FailureClass(BaseModel):
    """All rows of a stage that failed for the same reason."""

    stage: str
    kind: str
    reason: str
    count: int
    examples: list[Failure]


def failures(root: Root, stages: Sequence[str], done: dict[str, set[str]]) -> list[FailureClass]:
    """The newest failures of rows that are not done since, grouped; the most frequent first."""
    groups: dict[tuple[str, str, str], list[Failure]] = defaultdict(list)
    for stage in stages:
        for key, failure in sorted(newest_failures(root, stage).items()):
            if key not in done.get(stage, set()):
                groups[stage, failure.kind, failure.reason].append(failure)
    classes = [
        FailureClass(stage=stage, kind=kind, reason=reason, count=len(rows), examples=rows[:_EXAMPLES])
        for (stage, kind, reason), rows in groups.items()
    ]
    return sorted(classes, key=lambda group: (stages.index(group.stage), -group.count, group.reason))


def show_failures(classes: Sequence[FailureClass]) -> None:
    """Print failure classes as a table, each with its first examples."""
    if not classes:
        show.out.print("nothing was dropped and nothing failed")
        return
    rows = []
    for group in classes:
        for number, example in enumerate(group.examples):
            first = [group.stage, group.kind, group.reason, str(group.count)] if number == 0 else [""] * 4
            rows.append([*first, example.id, example.message.strip().splitlines()[-1]])
    show.table("failures", ["stage", "kind", "class", "rows", "example", "message"], rows, right=frozenset({"rows"}))
