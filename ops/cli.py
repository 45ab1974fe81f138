"""The command `sayso`: thin; the work is in plain functions elsewhere.

Data goes to stdout, progress to stderr. Exit codes: 0 ok, 1 work failed, 2 usage, 75 training was told to leave the
machine (SIGTERM) and goes on when the same command is run again, 130 stopped.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ops import care_cli, evaluate_cli, jobs_cli, runs_cli, show
from sayso.errors import Preempted, SaysoError, Stopped, UserError

app = typer.Typer(
    name="sayso",
    help="From a list of things people do to a trained video-text model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# What shells say of a command that was stopped by Ctrl-C.
INTERRUPTED = 130
# EX_TEMPFAIL of sysexits.h: the same command may be run again.
RESUME = 75

RootOption = Annotated[str, typer.Option("--root", help="The dataset root: a folder or any fsspec URL.")]
VideosOption = Annotated[
    list[str] | None,
    typer.Option(
        "--videos",
        help="A folder, a text/CSV/Parquet list of URLs, a feed, or a URL or search that yt-dlp understands. "
        "May be given several times.",
    ),
]
DocumentsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--documents",
        help="A CSV, TSV, JSONL or Parquet manifest of pictures with texts, or a folder of them; see docs/samples.md. "
        "May be given several times.",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="A pipeline's YAML file; see docs/configuration.md.")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings laid over the file's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved configuration and what would be done; do nothing.")
]
StageOption = Annotated[str | None, typer.Option("--stage", help="Only this stage.")]
ClassOption = Annotated[
    list[str] | None, typer.Option("--class", help="Only this class of failures; may be given several times.")
]
KindOption = Annotated[
    list[str] | None,
    typer.Option("--kind", help="Only skip, retry, permanent, poison or bug; may be given several times."),
]


@app.command()
def run(
    root: RootOption,
    overrides: Overrides = None,
    videos: VideosOption = None,
    documents: DocumentsOption = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Ingest videos: discover, fetch, transcribe, captions, align, shard. Run it again to go on.

    Of documents (pictures with texts): discover, images, shard.

    Example: sayso run --videos ./my-videos --root ./data
    """
    _ingest(None, root, videos, documents, config, overrides, dry_run, json)


def _stage_command(name: str, help_text: str) -> None:
    """Add the command of one stage."""

    def command(
        root: RootOption,
        overrides: Overrides = None,
        config: ConfigOption = None,
        dry_run: DryRunOption = False,
        json: JsonOption = False,
    ) -> None:
        _ingest([name], root, None, None, config, overrides, dry_run, json)

    app.command(name, help=help_text)(command)


@app.command()
def discover(
    root: RootOption,
    videos: VideosOption = None,
    documents: DocumentsOption = None,
    overrides: Overrides = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Find videos in folders, lists, feeds, playlists and searches, and documents in manifests, and note them."""
    _ingest(["discover"], root, videos, documents, config, overrides, dry_run, json)


_stage_command("fetch", "Fetch what was discovered and normalise it to proxies.")
_stage_command("transcribe", "Transcribe the speech of fetched videos with Whisper.")
_stage_command("captions", "Read the captions that came with fetched videos.")
_stage_command("align", "Make narrations: sentences with times, kept or dropped with a reason.")
_stage_command("features", "Compute what frozen models see in fetched videos, and store it; see docs/features.md.")
_stage_command("images", "Fetch the pictures of discovered documents and make them JPEGs of our own.")
_stage_command("shard", "Plan shards over what is kept, cut the clips and publish the tars.")


def _ingest(
    only: list[str] | None,
    root: str,
    videos: list[str] | None,
    documents: list[str] | None,
    config: Path | None,
    overrides: list[str] | None,
    dry_run: bool,
    json: bool,
) -> None:
    from ops.pipeline import describe, load_pipeline, run_pipeline
    from ops.status import show_status, status
    from sayso.root import Root

    pipeline = load_pipeline(config, overrides or [], videos or [], documents or [])
    if dry_run:
        _print(describe(pipeline, root, only), json)
        return
    if only and "discover" not in only:
        Root(root).open()  # nothing was ever put into a root that is not there; its name is mistyped
    opened = Root(root).create()
    with show.bars() as bars:
        stages = run_pipeline(opened, pipeline, only, bars)
    found = status(opened, stages)
    if json:
        show.as_json(found.model_dump())
    else:
        show_status(found)
    chosen = [stage for stage in found.stages if only is None or stage.name in only]
    if any(stage.failed for stage in chosen):
        show.err.print(f"sayso: some rows failed; see `sayso failures --root {root}`")
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's YAML file, or the name of one that comes with sayso.")],
    overrides: Overrides = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="Machines of a Ray cluster; the recipe's engine.nodes.")
    ] = None,
    restarts: Annotated[
        int | None, typer.Option("--restarts", min=0, help="Starts after a crash; the recipe's engine.restarts.")
    ] = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Train a recipe with the DeepSpeed launcher, on this machine or on several of a cluster. Run it again to go on.

    Ranks that crash, and machines that are lost, are started again from the last checkpoint. SIGTERM ends it after
    the step at hand with a checkpoint and exit code 75, which means: run it again.

    Example: sayso train mil_nce_demo data.root=./data data.export=clips output.folder=./model
    """
    from train.launch import launch
    from train.recipe import load_recipe

    given = {"nodes": nodes, "restarts": restarts}
    chosen = [*(overrides or []), *(f"engine.{key}={value}" for key, value in given.items() if value is not None)]
    if dry_run:
        _print({"recipe": load_recipe(recipe, chosen).model_dump(mode="json")}, json)
        return
    result = launch(recipe, chosen).to_json()
    if json:
        show.as_json(result)
    else:
        show.out.print(f"{result['steps']} steps, loss {result['loss']:.3f}; model: {result['model']}", highlight=False)


@app.command(name="demo")
def demo_command(
    folder: Annotated[Path, typer.Option("--root", help="Where everything is put.")] = Path("demo-data"),
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings laid over the recipe mil_nce_demo.")
    ] = None,
    videos: Annotated[int, typer.Option(min=4, help="Videos of the demo world.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the demo world.")] = 1,
    json: JsonOption = False,
) -> None:
    """The main job on a small world with known truth: make it, serve it, ingest it, train, evaluate."""
    from demo.settings import WorldSettings
    from ops.demo import demo, show_demo

    folder.mkdir(parents=True, exist_ok=True)
    result = demo(folder.resolve(), WorldSettings(videos=videos, seed=seed), overrides or [])
    if json:
        show.as_json(result.model_dump(mode="json"))
    else:
        show_demo(result)


@app.command(name="status")
def status_command(
    root: RootOption,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, with speeds, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")] = 2.0,
    json: JsonOption = False,
) -> None:
    """Where a data set stands, a stage: total, done, dropped by reason, failed by class.

    With --watch also whether a run is alive, its queue, workers, speeds over the last minute and the time left; with
    --json then one object a line.
    """
    from ops import watch as live
    from ops.pipeline import stages_of
    from ops.status import show_status, status
    from sayso.root import Root

    opened = Root(root).open()
    stages = stages_of(opened)
    if watch:
        live.watch(opened, stages, every, as_json=json)
        return
    found = status(opened, stages)
    if json:
        show.as_json(found.model_dump())
    else:
        show_status(found)


@app.command(name="failures")
def failures_command(
    root: RootOption,
    stage: StageOption = None,
    classes: ClassOption = None,
    kinds: KindOption = None,
    examples: Annotated[int, typer.Option(min=0, help="Examples of each class.")] = 3,
    json: JsonOption = False,
) -> None:
    """What was dropped or could not be done, by stage and class, with examples."""
    from ops.failures import failures, show_failures
    from ops.pipeline import stages_of
    from sayso.root import Root

    opened = Root(root).open()
    found = failures(opened, stages_of(opened), stage, kinds=kinds or [], reasons=classes or [], examples=examples)
    if json:
        show.as_json([group.model_dump() for group in found])
    else:
        show_failures(found)


@app.command(name="retry")
def retry_command(
    root: RootOption,
    stage: StageOption = None,
    classes: ClassOption = None,
    kinds: KindOption = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Only this row; may be given several times.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be tried again; do nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Make failed rows pending again, also those that would wait or would never be tried: the next run tries them.

    Dropped rows (kind skip) only where a class, a kind or an id names them. A run that works on the stage meanwhile
    is not disturbed, and leaves them to the run after it.

    Example: sayso retry --root ./data --stage fetch --class http_429
    """
    from ops.pipeline import stages_of
    from ops.retry import retry, show_asked
    from sayso.root import Root

    opened = Root(root).open()
    asked = retry(
        opened, stages_of(opened), stage, kinds=kinds or [], reasons=classes or [], ids=ids or [], dry_run=dry_run
    )
    if json:
        show.as_json([each.model_dump() for each in asked])
    else:
        show_asked(asked, dry_run=dry_run)


@app.command()
def replay(
    stage: Annotated[str, typer.Argument(help="fetch, transcribe, captions, align, features, images or shard.")],
    row_id: Annotated[str, typer.Argument(metavar="ID", help="The row's id, as `sayso failures` shows it.")],
    root: RootOption,
    overrides: Overrides = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Run one row of one stage in this terminal, without Ray, and print what comes of it. Tables stay as they are."""
    from ops.pipeline import load_pipeline, recorded, stages_of
    from ops.replay import replay as replay_row
    from sayso.root import Root

    opened = Root(root).open()
    pipeline = load_pipeline(config, overrides or [], []) if config else recorded(opened, overrides or [])
    result = replay_row(stages_of(opened, pipeline), stage, row_id)
    _print(result, json)
    if result["outcome"] not in ("done", "skip"):
        raise typer.Exit(1)


care_cli.add_to(app)


@app.command(name="doctor")
def doctor_command(json: JsonOption = False) -> None:
    """Look whether this machine has what sayso needs, and say how to get what is missing."""
    from ops.doctor import doctor, show_checks

    checks = doctor()
    if json:
        show.as_json([check.model_dump() for check in checks])
    else:
        show_checks(checks)
    if not all(check.ok for check in checks if check.needed):
        raise typer.Exit(1)


evaluate_cli.add_to(app)
jobs_cli.add_to(app)
runs_cli.add_to(app)


def _print(data: dict[str, Any], json: bool) -> None:
    """A nested mapping as JSON, or as YAML for people."""
    import yaml

    if json:
        show.as_json(data)
    else:
        show.out.print(
            yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip(), markup=False, highlight=False
        )


def _exit_code(error: SaysoError) -> int:
    if isinstance(error, Stopped):
        return RESUME if isinstance(error, Preempted) else INTERRUPTED
    return 2 if isinstance(error, UserError) else 1


def _stop(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _leave(signal_number: int, frame: object) -> NoReturn:
    show.err.print("sayso: training was stopped by SIGTERM before it began; the same command goes on")
    raise SystemExit(RESUME)


def main() -> None:
    """Entry point of the command."""
    # A cluster's scheduler says SIGTERM where a person presses Ctrl-C; both commit what is done before leaving.
    # Of training it takes seconds to import what handles signals (train/stopping.py).
    signal.signal(signal.SIGTERM, _leave if sys.argv[1:2] == ["train"] else _stop)
    try:
        app()
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            show.err.print("sayso: stopped; what was done is kept, the same command goes on from here")
        raise
    except SaysoError as error:
        show.err.print(f"sayso: {error}", markup=False, highlight=False)
        sys.exit(_exit_code(error))
    finally:
        # What is to be said is said. A signal while the interpreter ends must not turn the exit code into another.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
