"""The commands that look after a root: `sayso verify` and `sayso forget`."""

from __future__ import annotations

from typing import Annotated

import typer

from ops import show

RootOption = Annotated[str, typer.Option("--root", help="The dataset root: a folder or any fsspec URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (verify, forget):
        app.command()(command)


def verify(
    root: RootOption,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make again what can be made again; nothing may work on the root then.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Re-read every object and table, and name what is not whole."""
    from ops import repair as mending
    from ops import verify as verifying
    from sayso.root import Root

    # A root may be mended of which only the mark is broken.
    opened = Root(root) if repair and Root(root).storage.list("tables") else Root(root).open()
    repaired = mending.repair(opened) if repair else None
    found = repaired.verified if repaired else verifying.verify(opened)
    if json:
        show.as_json((repaired or found).model_dump())
    else:
        if repaired:
            mending.show_repaired(repaired)
        verifying.show_verified(found)
    if found.problems:
        raise typer.Exit(1)


def forget(
    root: RootOption,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID...", help="Ids of videos or documents; none: finish what was begun."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept beside the id in table forgotten.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; do nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove videos everywhere and for good, make their shards again without them, and prove it by looking.

    Nothing may work on the root meanwhile. What was killed on the way is finished by the same command.

    Example: sayso forget youtube:dQw4w9WgXcQ --root ./data --reason "asked by the uploader"
    """
    from ops import forget as forgetting
    from sayso.root import Root

    done = forgetting.forget(Root(root).open(), ids or [], reason, dry_run=dry_run)
    if json:
        show.as_json(done.model_dump())
    else:
        forgetting.show_forgot(done, dry_run=dry_run)
    if not dry_run and not done.proven:
        raise typer.Exit(1)
