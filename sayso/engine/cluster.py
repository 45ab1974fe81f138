"""Joining a Ray cluster, or starting Ray on this machine for the length of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Ray reads these when it is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from sayso.engine.settings import EngineSettings
from sayso.errors import UserError
from sayso.stage import Resources

# Only keys and rows travel through Ray, never media: its object store can be small.
_OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def connected(settings: EngineSettings) -> Iterator[None]:
    """A connection to Ray. A cluster that was running before goes on running."""
    if ray.is_initialized():
        yield
        return
    try:
        if settings.address:
            ray.init(address=settings.address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                object_store_memory=_OBJECT_STORE_BYTES,
            )
    except ConnectionError as error:
        raise UserError(f"engine.address: no Ray cluster answers at {settings.address} ({error})") from None
    try:
        yield
    finally:
        ray.shutdown()


def pool_size(needs: Resources, rows: int, settings: EngineSettings) -> int:
    """How many workers of these needs the cluster holds, and the rows can use."""
    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = [int(has.get("CPU", 0) // needs.cpus)] if needs.cpus else []
    if needs.gpus:
        fits.append(int(has.get("GPU", 0) // needs.gpus))
    most = min(fits, default=rows)
    if most < 1:
        raise UserError(f"no node has {needs.cpus:g} cpus and {needs.gpus:g} gpus for a worker; the cluster has {has}")
    return max(1, min(most, rows, settings.workers or most))
