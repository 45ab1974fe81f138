"""Commands of sayso as jobs of a Ray cluster: sent, listed, followed, stopped.

A job runs on the cluster's head as `python3 -m ops ARGUMENTS`. It brings the code of this installation along, so
that driver and workers run exactly that, and the working directory with its configuration and lists.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sayso.code import PACKAGES, code_hash, sources
from sayso.errors import InputError, Stopped, UserError, WorkFailed

# python3 is in every environment that has Ray, python is not; -P: a folder `train` of the user's is not ours.
_COMMAND = ("exec", "python3", "-P", "-m", "ops")
# What the job server takes at most in one upload.
_UPLOAD_BYTES = 100 * 2**20
# A stopped run commits what is settled; Ray kills after 3 s if not told otherwise.
_STOP_SECONDS = 60
_LOOK_SECONDS = 1.0
_TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
_ROOT = re.compile(r"(--root|data\.root|output\.(folder|mirror))=")
_NAME = re.compile(r"[A-Za-z_]\w*")
# Ray puts the node's own variables into such places of a value, and there is no way to tell it not to.
_EXPANDED = re.compile(r"\$(\w|\{)")
_EXIT_STOPPED = 130


class Job(BaseModel):
    """A job as its server knows it.

    `seconds` is how long it took, or has taken so far; `message` says why Ray ended it, where Ray did.
    """

    id: str
    status: str
    command: str
    user: str
    code: str
    started: datetime | None
    seconds: float | None
    exit_code: int | None
    message: str


class JobServer:
    """The job server of a cluster, on its head. UserError where it does not answer or refuses the token."""

    def __init__(self, address: str | None = None) -> None:
        self.address = _resolved(address)
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        # Ray prefers its variables over what it is given; this one comes first.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        from ray.job_submission import JobSubmissionClient

        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._answering():
            self._client = JobSubmissionClient(self.address)

    def submit(
        self,
        arguments: Sequence[str],
        working_dir: Path,
        variables: Mapping[str, str],
        job_id: str | None = None,
    ) -> str:
        """Start `sayso ARGUMENTS` on the cluster and return the job's id."""
        _refuse_relative_root(arguments)
        _refuse_large(working_dir)
        job_id = job_id or new_id()
        if not _ID.fullmatch(job_id):
            raise InputError(f"--id {job_id}: only letters, digits, points, dashes and underscores, at most 100")
        if any(job.id == job_id for job in self.jobs()):
            raise InputError(f"--id {job_id}: there is such a job already; take another id, or none")
        with tempfile.TemporaryDirectory(prefix="sayso-submit-") as folder, self._answering():
            self._client.submit_job(
                entrypoint=shlex.join([*_COMMAND, *arguments]),
                submission_id=job_id,
                runtime_env={
                    "working_dir": str(working_dir),
                    "py_modules": _staged_code(Path(folder)),
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS), **variables},
                },
                metadata={
                    "command": shlex.join(["sayso", *arguments]),
                    "code": code_hash(),
                    "user": getpass.getuser(),
                },
            )
        return job_id

    def jobs(self) -> list[Job]:
        """Every submitted job, the newest first."""
        with self._answering():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if details.submission_id]
        return sorted(jobs, key=lambda job: (job.started is not None, job.started), reverse=True)

    def job(self, job_id: str) -> Job:
        """One job; InputError where there is none of that id."""
        for job in self.jobs():
            if job.id == job_id:
                return job
        raise InputError(f"{job_id}: no such job at {self.address}; `sayso jobs` lists them")

    def logs(self, job_id: str) -> str:
        """What a job has printed so far, on stdout and stderr."""
        self.job(job_id)
        with self._answering():
            return str(self._client.get_job_logs(job_id))

    def follow(self, job_id: str, write: Callable[[str], object]) -> Job:
        """Write what a job prints until it ends. Stopped where we are interrupted: the job itself goes on."""
        self.job(job_id)
        try:
            asyncio.run(self._follow(job_id, write))
            return self.job(job_id)
        except KeyboardInterrupt:
            raise Stopped(
                f"no longer following; the job goes on: `sayso logs -f {job_id}`, `sayso stop {job_id}`"
            ) from None

    async def _follow(self, job_id: str, write: Callable[[str], object]) -> None:
        import aiohttp

        written = 0
        while True:
            # The server begins at the beginning each time.
            known, written = written, 0
            try:
                async for text in self._client.tail_job_logs(job_id):
                    write(text[max(0, known - written) :])
                    written += len(text)
            except (aiohttp.ClientError, RuntimeError):
                # The connection or the job's node was lost; the job's status tells which.
                written = max(written, known)
            if self.job(job_id).exit_code is not None:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def stop(self, job_id: str) -> Job:
        """Ask a job to end, wait until it has, and return what became of it. Nothing happens to one that has ended."""
        if self.job(job_id).exit_code is None:
            with self._answering():
                self._client.stop_job(job_id)
        deadline = time.monotonic() + 2 * _STOP_SECONDS
        while (job := self.job(job_id)).exit_code is None:
            if time.monotonic() > deadline:
                raise WorkFailed(f"{job_id} has not ended within {2 * _STOP_SECONDS} s; see `sayso logs {job_id}`")
            time.sleep(_LOOK_SECONDS / 2)
        return job

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what the client raises into lines that say what to do."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise UserError(
                f"the job server at {self.address} refuses our token; give the cluster's as RAY_AUTH_TOKEN_PATH=FILE "
                "or RAY_AUTH_TOKEN (`ray get-auth-token` on the head prints it)"
            ) from None
        except (ConnectionError, requests.exceptions.ConnectionError):
            raise UserError(
                f"no job server answers at {self.address}; give --address http://HEAD:8265, "
                "and see that the head was started with its dashboard and that the port is open from here"
            ) from None
        except (RuntimeError, requests.exceptions.RequestException) as error:
            raise WorkFailed(f"the job server at {self.address}: {' '.join(str(error).split())}") from None


def new_id() -> str:
    """An id of its own for a job: sayso-20260131-235959-1f3c."""
    return f"sayso-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def chosen_variables(choices: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE as it stands and NAME from our environment, as `docker run --env` takes them."""
    chosen = {}
    for choice in choices:
        name, given, value = choice.partition("=")
        if not _NAME.fullmatch(name):
            raise InputError(f"--env {name}: not the name of a variable; write NAME or NAME=VALUE")
        if not given and name not in os.environ:
            raise InputError(f"--env {name}: not set here; set it, or write --env {name}=VALUE")
        chosen[name] = value if given else os.environ[name]
        if _EXPANDED.search(chosen[name]):
            raise InputError(f"--env {name}: Ray would change its value, which holds a $; set it on the nodes instead")
    return chosen


def _resolved(address: str | None) -> str:
    """The URL of the job server: as given, else as Ray's variables say, else on this machine."""
    joined = os.environ.get("RAY_ADDRESS", "")
    url = address or os.environ.get("RAY_API_SERVER_ADDRESS") or (joined if joined.startswith("http") else "")
    if url and not url.startswith(("http://", "https://")):
        raise InputError(f"--address {url}: not the URL of a job server; write http://HEAD:8265")
    return url.rstrip("/") or "http://127.0.0.1:8265"


def _refuse_relative_root(arguments: Sequence[str]) -> None:
    """A job's working directory is a copy that goes away with the job; a root below it would go with it."""
    roots = [after for option, after in pairwise(arguments) if option == "--root"]
    roots += [each.partition("=")[2] for each in arguments if _ROOT.match(each)]
    for root in roots:
        if "://" not in root and not Path(root).is_absolute():
            raise InputError(f"{root}: lost with the job's working directory; give a URL or an absolute path")


def _refuse_large(folder: Path) -> None:
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    if not folder.is_dir():
        raise InputError(f"--working-dir {folder}: no such folder")
    total = 0

    def add(path: Path) -> None:
        nonlocal total
        total += path.stat().st_size if path.is_file() else 0

    left_out = _get_excludes(folder, get_runtime_env_default_excludes())
    _dir_travel(folder, [left_out], add, include_gitignore=True)
    if total > _UPLOAD_BYTES:
        raise InputError(
            f"--working-dir {folder}: {total / 2**20:.0f} MiB, at most {_UPLOAD_BYTES // 2**20} MiB can be sent; "
            "choose a folder with configuration and lists only, or name the rest in a .rayignore or .gitignore there"
        )


def _staged_code(folder: Path) -> list[str]:
    """Our packages without anything that lies beside their sources: exactly what `code_hash` covers."""
    for name, path in sources().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return [str(folder / package) for package in PACKAGES]


def _job(details: Any) -> Job:
    metadata: Mapping[str, str] = details.metadata or {}
    started = details.start_time and datetime.fromtimestamp(details.start_time / 1000, UTC)
    ended = details.end_time / 1000 if details.end_time else time.time()
    return Job(
        id=details.submission_id,
        status=details.status.value.lower(),
        command=metadata.get("command", details.entrypoint),
        user=metadata.get("user", ""),
        code=metadata.get("code", ""),
        started=started or None,
        seconds=max(0.0, ended - details.start_time / 1000) if details.start_time else None,
        exit_code=_exit_code(details),
        message="" if details.driver_exit_code is not None else (details.message or "").partition("\n")[0],
    )


def _exit_code(details: Any) -> int | None:
    """The code of the job's own command; None while it runs. A job that Ray lost has failed."""
    match details.status.value:
        case "SUCCEEDED":
            return 0
        case "STOPPED":
            return _EXIT_STOPPED
        case "FAILED":
            code: int = details.driver_exit_code or 1
            return code if 0 < code < 256 else 1
        case _:
            return None
