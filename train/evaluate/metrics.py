"""Retrieval figures from a matrix of scores.

    rank of a query = 1 + candidates that score higher than the right one + half of those that score the same
    R@K = share of queries with rank <= K, in %

A model that gives everything the same score therefore gets what guessing gets, not a perfect result. Some
programs count ties as won (rank = 1 + candidates that score higher); that is given beside it, for parity.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sayso.errors import WorkFailed

KS = (1, 5, 10)
Ties = Literal["half", "won"]


class RetrievalMetrics(BaseModel):
    """R@K in %, and the median rank (1 is best)."""

    model_config = ConfigDict(frozen=True)

    r1: float
    r5: float
    r10: float
    median_rank: float


def check_finite(values: Tensor) -> None:
    """WorkFailed where a model gives what is no number: nothing is above it, so it would pass for the best."""
    if not values.isfinite().all():
        raise WorkFailed("the model gives embeddings that are not numbers; its training has diverged")


def ranks(scores: Tensor, ties: Ties = "half") -> Tensor:
    """scores (N queries, N candidates), the right candidate of query i in column i -> float ranks (N,), from 1."""
    check_finite(scores)
    right = scores.diagonal()[:, None]
    higher = (scores > right).sum(dim=1)
    same = (scores == right).sum(dim=1) - 1
    return 1 + higher + (same / 2 if ties == "half" else 0.0)


def retrieval_metrics(scores: Tensor, ties: Ties = "half") -> RetrievalMetrics:
    """The figures of a score matrix as `ranks` takes it."""
    found = ranks(scores, ties)
    r1, r5, r10 = (100 * (found <= k).double().mean().item() for k in KS)
    return RetrievalMetrics(r1=r1, r5=r5, r10=r10, median_rank=found.double().quantile(0.5).item())


def chance(candidates: int) -> RetrievalMetrics:
    """What guessing gets among N candidates: R@K = 100 K / N, median rank (N + 1) / 2."""
    r1, r5, r10 = (min(100.0, 100 * k / candidates) for k in KS)
    return RetrievalMetrics(r1=r1, r5=r5, r10=r10, median_rank=(candidates + 1) / 2)
