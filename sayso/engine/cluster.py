"""Joining a Ray cluster, or starting Ray on this machine for the length of a run.

Ray takes seconds to import and to start, so neither happens before there is a row to work on.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from sayso.engine.join import join
from sayso.engine.settings import EngineSettings
from sayso.errors import UserError
from sayso.stage import Resources

# Only keys and rows travel through Ray, never media: its object store can be small.
_OBJECT_STORE_BYTES = 256 * 2**20


class Cluster:
    """A connection to Ray that is made when it is first needed. A cluster that ran before goes on running."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._ours = False

    def connect(self) -> None:
        """Join or start Ray, if this process is not connected yet. UserError where no cluster answers.

        Joined is the cluster of the settings, else that of RAY_ADDRESS, which Ray sets in a submitted job.
        """
        # Ray reads these when it is imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if ray.is_initialized():
            return
        address = self._settings.address or os.environ.get("RAY_ADDRESS")
        if address and address != "local":
            join(address)
        else:
            with _deaf_to_ctrl_c():
                ray.init(
                    address="local",  # never somebody's cluster that happens to run on this machine
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    object_store_memory=_OBJECT_STORE_BYTES,
                )
        self._ours = True

    def close(self) -> None:
        """Leave the cluster, or end the Ray that was started here."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False

    def pool_size(self, needs: Resources, rows: int) -> int:
        """How many workers of these needs the cluster holds and the rows can use; UserError where it holds none."""
        import ray

        has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        fits = [int(has.get("CPU", 0) // needs.cpus)] if needs.cpus else []
        if needs.gpus:
            fits.append(int(has.get("GPU", 0) // needs.gpus))
        most = min(fits, default=rows)
        if most < 1:
            asked = f"{needs.cpus:g} cpus and {needs.gpus:g} gpus"
            raise UserError(f"no node has {asked} for a worker; the cluster has {has}")
        return max(1, min(most, rows, self._settings.workers or most))


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started within do not hear SIGINT, for a terminal sends it to the whole group.

    Only the driver is to hear it: it commits what is settled and then ends Ray in order. A signal that comes
    meanwhile is delivered at the end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
