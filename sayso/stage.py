"""What a stage is: a pure step from one row to rows, apart from objects that it writes under derived keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import pyarrow as pa

from sayso.root import Root
from sayso.rows import Row

In = TypeVar("In", bound=Row)
Out = TypeVar("Out", bound=Row)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one worker of a stage takes of the cluster."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0


class Stage(ABC, Generic[In, Out]):
    """One step of the way of the data. Made on the driver, pickled to workers, opened once in each.

    Where it runs, how often a row is tried and where rows go is not its business. It may be used without the
    engine: `stage.open()`, then `stage(row)`.
    """

    name: ClassVar[str]
    reads: ClassVar[type[Row]]
    writes: ClassVar[type[Row]]
    after: ClassVar[Mapping[str, type[Row]]] = {}
    """Stages, each with what it writes, that must have settled a key before it is an input here."""
    whole: ClassVar[bool] = False
    """Whether this stage begins only once all stages before it in the run have come to rest."""
    resources: Resources = Resources()

    def __init__(self, root: Root) -> None:
        self.root = root

    def check(self) -> None:
        """Raise what the user has to mend before a run starts; nothing is written."""
        return

    def begin(self) -> None:
        """What is to be done on the driver before the inputs are looked up."""
        return

    def end(self) -> None:
        """What is to be done on the driver once nothing is left to do."""
        return

    def input_keys(self) -> pa.LargeStringArray:
        """The keys of all inputs, each once, read without the rows: those of `reads` unless a stage says otherwise."""
        return self.root.table(self.reads).keys()

    def inputs(self, keys: Collection[str]) -> Iterator[In]:
        """The inputs with these keys, in no order; keys that there are no rows for are left out."""
        assert len(self.reads.key_columns) == 1, f"{self.name}: say how the inputs of several key columns are read"
        return self.root.table(self.reads).rows(None, **{self.reads.key_columns[0]: keys})  # type: ignore[return-value]  # reads is type[In], which ClassVar cannot say

    def key(self, row: In) -> str:
        """The name of an input row in ledgers: what is done, failed or replayed."""
        return "/".join(str(getattr(row, column)) for column in row.key_columns)

    def time_limit(self, row: In) -> float:
        """Seconds after which the worker of this row is killed."""
        return 600.0

    def video_seconds(self, row: In, made: Sequence[Out]) -> float:
        """Seconds of video in a row that became `made`, for figures."""
        return 0.0

    def open(self) -> None:
        """Load what all rows need (models), once a worker."""
        return

    @abstractmethod
    def __call__(self, row: In) -> Sequence[Out]:
        """Turn one row into rows. Raises Skip, Retry or Permanent; anything else is a bug."""
