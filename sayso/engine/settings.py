"""What can be configured of the engine."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from sayso.config import Settings


class EngineSettings(Settings):
    """How rows are handed out, tried and committed."""

    address: str | None = Field(
        default=None,
        description="address of a Ray cluster, host:port or auto; none takes the environment's RAY_ADDRESS, "
        "else starts Ray on this machine for the length of the run",
    )
    workers: int | None = Field(
        default=None, ge=1, description="workers a stage at most; none takes what the cluster has"
    )
    attempts: PositiveInt = Field(
        default=3, description="attempts at a row in one run; a row that killed its worker so often is quarantined"
    )
    backoff: PositiveFloat = Field(default=1.0, description="seconds before the first retry; doubles with each")
    longest_wait: PositiveFloat = Field(
        default=60.0, description="a retry that is due later than this many seconds is left to the next run"
    )
    bugs_in_a_row: PositiveInt = Field(
        default=10, description="rows failing one after the other with a traceback before the run stops"
    )
    commit_seconds: PositiveFloat = Field(default=5.0, description="seconds between commits of what is settled")
    commit_rows: PositiveInt = Field(default=1000, description="settled rows that are committed without waiting")
    open_limit: PositiveFloat = Field(default=300.0, description="seconds a worker may take to load its models")
    queue_depth: PositiveInt = Field(default=2, description="rows handed to a worker ahead of their turn")
