"""Measuring a model by a published protocol on video files as they were downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.evaluate import evaluate_protocol
from sayso.root import Root
from sayso.rows import Media
from sayso.storage import Storage
from tests.films import COLOURS, film, random_model
from train.evaluate.retrieval import evaluate_retrieval
from train.evaluate.text_to_clip import YouCook2

Command = Callable[..., Any]

ROWS = [
    "end,start,task,text,video_id",
    "6,1,226,now the red one moves,aaaaaaaaaa1",
    "8,6,226,now the red one,aaaaaaaaaa1",
    "5,0,226,now the green one moves,-bbbbbbbb_2",
    "5,0,226,now the blue one moves,cccccccccc3",
    "5,0,226,the white one,dddddddddd4",
    "5,0,226,the one,gone5",
]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The options of an evaluation: a model, annotations, and files in folders under several kinds of names."""
    folder = tmp_path_factory.mktemp("evaluate")
    videos = folder / "videos"
    (videos / "validation" / "226").mkdir(parents=True)
    film(videos / "validation" / "226" / "aaaaaaaaaa1.mkv", [COLOURS["red"]])
    film(videos / "validation" / "-bbbbbbbb_2.avi", [COLOURS["green"]], codec="mpeg4")
    film(videos / "How it [really] moves [cccccccccc3].mp4", [COLOURS["blue"]])
    film(videos / "not asked for.mp4", [COLOURS["white"]])
    (videos / "dddddddddd4.webm").write_bytes(b"an error page of some site" * 100)
    annotations = folder / "youcook2_val.csv"
    annotations.write_text("\n".join(ROWS) + "\n")
    model = random_model(folder / "model")
    return ["--checkpoint", model, "--annotations", annotations, "--videos", videos, "--windows", "2"]


@pytest.fixture(scope="module")
def report(sayso: Command, given: list[str | Path]) -> Any:
    ran = sayso("evaluate", "youcook2", *given, "--json", "fetch.profile.crf=18")
    assert ran.code == 0, ran.err
    return ran.json()


def test_files_are_found_by_their_ids_and_what_is_missing_is_told(report: Any, given: list[str | Path]) -> None:
    assert (report["used"], report["of"], report["unit"]) == (4, 6, "clips")
    assert report["videos"] == {"found": 3, "of": 5}
    assert report["missing"].keys() == {"dddddddddd4", "gone5"}
    assert report["missing"]["gone5"] == "no such file"
    assert report["missing"]["dddddddddd4"].startswith("fetch: ")
    assert report["chance"]["r1"] == 25
    assert set(report["metrics"]) == {"r1", "r5", "r10", "median_rank"}
    root = Root(f"{given[5]}/.sayso").open()
    assert report["root"] == root.url
    assert len(list(root.table(Media).rows())) == 3, "only what the annotations ask for is made into proxies"


def test_again_finds_the_proxies_and_people_read_the_same(sayso: Command, report: Any, given: list[str | Path]) -> None:
    ran = sayso("evaluate", "youcook2", *given)
    assert ran.code == 0, ran.err
    assert "fetch" not in ran.err, "nothing is left to be fetched"
    assert "youcook2: 4 of 6 clips, 3 of 5 videos" in ran.out
    assert "missing (no such file): 1 videos: gone5" in ran.out
    figures = report["metrics"]
    assert re.search(rf"R@1 .* {figures['r1']:.1f} % .* 25\.0 %", ran.out)
    assert re.search(rf"median rank .* {figures['median_rank']:g} .* 2\.5", ran.out)
    assert "ties counted as won" in ran.out


def test_the_root_alone_gives_the_same_figures_and_a_model_at_a_url_its_url(
    report: Any, given: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    elsewhere, annotations = Storage("memory://bucket/model"), Path(given[3])
    for path in Path(given[1]).iterdir():
        elsewhere.put_file(path, path.name)
    found = evaluate_protocol(YouCook2, elsewhere.url, annotations, root=report["root"], windows=2)
    assert (report["model"], found.model) == (str(given[1]), "memory://bucket/model")
    own = evaluate_retrieval(elsewhere.url, report["root"], pairs=annotations, windows=2)
    assert own.model == "memory://bucket/model"
    assert found.metrics == pytest.approx(report["metrics"])
    assert found.missing == dict.fromkeys(["dddddddddd4", "gone5"], "not in the root")


def test_own_pairs_are_measured_in_the_same_root(report: Any, given: list[str | Path]) -> None:
    options = ["--checkpoint", str(given[1]), "--root", report["root"], "--pairs", str(given[3])]
    ran = CliRunner().invoke(app, ["evaluate", "retrieval", *options])
    assert ran.exit_code == 0, ran.output
    assert "retrieval: 4 of 6 clips, 3 of 5 videos" in ran.stdout
    assert "missing (not in the root): 2 videos: dddddddddd4, gone5" in ran.stdout
