"""The commands around jobs of a cluster: submit, jobs, logs, stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ops import show
from ops.jobs import Job, JobServer, chosen_variables

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The job server's URL, http://HEAD:8265; else RAY_API_SERVER_ADDRESS, else the one on this machine.",
    ),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A job's id, as `sayso jobs` shows it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def submit(
    arguments: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="A command of sayso.")],
    address: AddressOption = None,
    working_dir: Annotated[
        Path, typer.Option("--working-dir", help="The folder sent along, without what .gitignore names.")
    ] = Path(),
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME[=VALUE]", help="A variable for the job and its workers. May be given several times."
        ),
    ] = None,
    job_id: Annotated[str | None, typer.Option("--id", help="The job's id, instead of a made one.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job and end with its exit code.")] = True,
) -> None:
    """Run a command of sayso as a job on a Ray cluster, with the code of this installation.

    Example: sayso submit --address http://head:8265 --env AWS_PROFILE -- run --config videos.yaml --root s3://bucket/data
    """
    server = JobServer(address)
    job_id = server.submit(arguments, working_dir.resolve(), chosen_variables(env or []), job_id)
    if not wait:
        show.out.print(job_id, markup=False, highlight=False)
        return
    show.err.print(f"sayso: job {job_id}", markup=False, highlight=False)
    _follow(server, job_id)


def jobs(address: AddressOption = None, json: JsonOption = False) -> None:
    """The jobs of a cluster, the newest first."""
    found = JobServer(address).jobs()
    if json:
        show.as_json([job.model_dump(mode="json") for job in found])
        return
    columns = ("id", "status", "started", "took", "exit", "command")
    show.table("Jobs", columns, [_row(job) for job in found], right=frozenset({"took", "exit"}))


def logs(
    job_id: IdArgument,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends, with its code.")] = False,
    address: AddressOption = None,
) -> None:
    """What a job has printed."""
    server = JobServer(address)
    if follow:
        _follow(server, job_id)
    else:
        _write(server.logs(job_id))


def stop(job_id: IdArgument, address: AddressOption = None) -> None:
    """Stop a job as Ctrl-C does: what is settled is committed. The same command, submitted again, goes on."""
    job = JobServer(address).stop(job_id)
    show.out.print(f"{job.id} {job.status}", markup=False, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command `sayso`."""
    # What follows the command's name is the command's own, with or without `--` before it.
    app.command(context_settings={"allow_interspersed_args": False})(submit)
    for command in (jobs, logs, stop):
        app.command()(command)


def _follow(server: JobServer, job_id: str) -> None:
    job = server.follow(job_id, _write)
    show.err.print(f"sayso: job {job_id} {job.status}", markup=False, highlight=False)
    if job.status == "failed" and job.message:
        show.err.print(f"sayso: {job.message}", markup=False, highlight=False)
    if job.exit_code:
        raise typer.Exit(job.exit_code)


def _row(job: Job) -> tuple[str, ...]:
    started = job.started.astimezone().strftime("%Y-%m-%d %H:%M:%S") if job.started else ""
    took = show.duration(job.seconds) if job.seconds is not None else ""
    code = "" if job.exit_code is None else str(job.exit_code)
    return (job.id, job.status, started, took, code, job.command)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
