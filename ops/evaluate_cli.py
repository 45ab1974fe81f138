"""The commands that measure a trained model: evaluate retrieval, youcook2, msrvtt, hmdb51, crosstask.

And import-weights, which makes a model to be measured of what others released.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ops import show

CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", help="A training run's folder, or a model's; also at any fsspec URL.")
]
VideosOption = Annotated[
    Path | None,
    typer.Option("--videos", help="A folder of video files, each named by its id; folders in it are searched."),
]
KeptRootOption = Annotated[
    str | None,
    typer.Option(
        "--root",
        help="A dataset root that has the videos; with --videos the one their proxies are kept in, by default .sayso "
        "in that folder.",
    ),
]
SettingsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings of the ingestion of --videos, e.g. fetch.profile.crf=18."),
]
SizeOption = Annotated[
    int | None,
    typer.Option("--size", min=1, help="Side of the pictures that are looked at, in px; by default that of training."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@dataclass(frozen=True)
class _Command:
    """What the help of a protocol's command says."""

    about: str
    annotations: str
    columns: str
    windows: str = "Windows of a clip that are looked at; by default 10."


_COMMANDS = {
    "youcook2": _Command(
        "Zero-shot text-to-clip retrieval on YouCook2's validation clips: R@1, R@5, R@10, median rank.",
        "youcook2_val.csv",
        "as released with MIL-NCE: end,start,task,text,video_id.",
    ),
    "msrvtt": _Command(
        "Zero-shot text-to-video retrieval on MSR-VTT 1k-A: R@1, R@5, R@10, median rank.",
        "msrvtt_test_1kA.csv",
        "with key,vid_key,video_id,sentence.",
    ),
    "hmdb51": _Command(
        "Action recognition on HMDB-51 by a linear SVM on the frozen video tower: accuracy of three splits.",
        "hmdb51.csv",
        "as released with MIL-NCE: video_id,label,split1,split2,split3.",
    ),
    "crosstask": _Command(
        "Step localisation on CrossTask's primary tasks by ordered assignment: mean recall of the tasks.",
        "crosstask_release",
        "as released: the folder, for the videos of its videos_val.csv, or another list of videos in it.",
        "A second has one window; nothing else is allowed.",
    ),
}


def retrieval(
    checkpoint: CheckpointOption,
    root: Annotated[str, typer.Option("--root", help="The dataset root: a folder or any fsspec URL.")],
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="CSV with video_id, start, end, text: clips of the root's videos.")
    ] = None,
    export: Annotated[str | None, typer.Option("--export", help="An export of the root, instead of --pairs.")] = None,
    split: Annotated[str, typer.Option("--split", help="The split of the export.")] = "test",
    windows: Annotated[int, typer.Option("--windows", min=1, help="Windows of a clip that are averaged.")] = 10,
    json: JsonOption = False,
) -> None:
    """Zero-shot text-to-video retrieval: R@1, R@5, R@10, median rank, beside chance."""
    from ops.retrieval import show_retrieval
    from train.evaluate.retrieval import evaluate_retrieval

    with show.counter("clips") as progress:
        found = evaluate_retrieval(
            checkpoint, root, pairs=pairs, export=export, split=split, windows=windows, progress=progress
        )
    if json:
        show.as_json(found.to_json())
    else:
        show_retrieval(found)


def _protocol_command(app: typer.Typer, name: str, told: _Command) -> None:
    """Add the command of one published protocol."""

    def command(
        checkpoint: CheckpointOption,
        annotations: Annotated[Path, typer.Option("--annotations", help=f"{told.annotations} {told.columns}")],
        overrides: SettingsArgument = None,
        videos: VideosOption = None,
        root: KeptRootOption = None,
        windows: Annotated[int | None, typer.Option("--windows", min=1, help=told.windows)] = None,
        size: SizeOption = None,
        json: JsonOption = False,
    ) -> None:
        from ops.evaluate import evaluate_protocol, show_report
        from train.evaluate.protocols import PROTOCOLS

        settings = overrides or []
        report = evaluate_protocol(
            PROTOCOLS[name],
            checkpoint,
            annotations,
            videos=videos,
            root=root,
            windows=windows,
            size=size,
            overrides=settings,
        )
        if json:
            show.as_json(report.to_json())
        else:
            show_report(report)

    example = f"sayso evaluate {name} --checkpoint ./model --videos ./{name} --annotations {told.annotations}"
    app.command(name, help=f"{told.about}\n\nExample: {example}")(command)


def import_weights(
    weights: Annotated[Path, typer.Argument(help="s3d_howto100m.pth, or a checkpoint of the training release.")],
    words: Annotated[Path, typer.Option("--words", help="The words released with them: s3d_dict.npy.")],
    output: Annotated[Path, typer.Option("--output", help="The model's folder, to be made.")],
    max_words: Annotated[
        int, typer.Option("--max-words", min=1, help="Words of a sentence that are read; the released evaluation's.")
    ] = 30,
    json: JsonOption = False,
) -> None:
    """Make a model of the weights released with MIL-NCE (HowTo100M), for --checkpoint of every protocol.

    Example: sayso import-weights s3d_howto100m.pth --words s3d_dict.npy --output ./released
    """
    from train.imported import import_howto100m

    card = import_howto100m(weights, words, output, max_words=max_words)
    if json:
        show.as_json({"model": str(output), "words": card.words - 1, "clips": card.clips.model_dump(mode="json")})
    else:
        clips = f"{card.clips.frames} frames at {card.clips.fps:g} fps, {card.clips.size} px"
        show.out.print(f"{output}: S3D-G over {clips}; {card.words - 1} words", highlight=False, markup=False)


def add_to(app: typer.Typer) -> None:
    """Add `import-weights`, and `evaluate` with its commands, to the command `sayso`."""
    app.command("import-weights")(import_weights)
    evaluate = typer.Typer(help="Measure a trained model.", no_args_is_help=True)
    evaluate.command()(retrieval)
    for name, told in _COMMANDS.items():
        _protocol_command(evaluate, name, told)
    app.add_typer(evaluate, name="evaluate")
