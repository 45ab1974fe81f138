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
        default=None, ge=1, description="workers at most, of all stages together; none takes what the cluster has"
    )
    attempts: PositiveInt = Field(
        default=3, description="attempts at a row in one run; a row that killed its worker so often is quarantined"
    )
    backoff: PositiveFloat = Field(default=1.0, description="seconds before the first retry; doubles with each")
    backoff_by_class: dict[str, PositiveFloat] = Field(
        default={"http_429": 30.0, "storage": 5.0, "no_space": 5.0},
        description="the same for failures of a class, such as http_429",
    )
    longest_wait: PositiveFloat = Field(
        default=60.0, description="a retry that is due later than this many seconds is left to the next run"
    )
    bugs_in_a_row: PositiveInt = Field(
        default=10,
        description="rows of a stage failing one after the other with a traceback, for want of space or of storage, "
        "before the run stops",
    )
    commit_seconds: PositiveFloat = Field(
        default=5.0, description="seconds between commits of what is settled; more where commits take long"
    )
    commit_rows: PositiveInt = Field(default=10_000, description="settled rows that are committed without waiting")
    open_limit: PositiveFloat = Field(default=300.0, description="seconds a worker may take to load its models")
    node_limit: PositiveFloat = Field(
        default=900.0, description="seconds to wait for a node that can hold a worker, where the cluster has none"
    )
    queue_depth: PositiveInt = Field(default=2, description="batches handed to a worker ahead of their turn")
    batch_seconds: PositiveFloat = Field(
        default=0.2, description="quick rows are handed out in batches of this length; others one by one"
    )
    backlog_rows: PositiveInt = Field(
        default=1000, description="rows waiting for a stage before the stages that feed it pause"
    )
    worker_rows: PositiveInt = Field(default=10_000, description="rows after which a worker is replaced by a fresh one")
    worker_memory_gib: PositiveFloat = Field(
        default=8.0,
        description="GiB a worker may take; at three quarters it is replaced after its row, beyond it the row fails",
    )
