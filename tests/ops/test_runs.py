"""Runs in folders as `sayso train` leaves them; tests/train trains real ones."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from ops.cli import app
from ops.plot import draw
from ops.runs import compare, find_runs, read_run
from sayso.errors import ConfigError, InputError, SaysoError
from sayso.storage import Storage


def make_run(folder: Path, *, lr: float, falls: float, code: str = "a" * 64) -> Path:
    folder.mkdir(parents=True)
    recipe = {
        "objective": {"name": "mil_nce"},
        "optimiser": {"name": "adam", "lr": lr},
        "output": {"folder": str(folder)},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lines: list[dict[str, float]] = [
        {"step": step, "loss": 5 - falls * step, "samples_per_second": 10.0 * step, "data_wait": 0.02, "mfu": 0.4}
        for step in range(1, 21)
    ]
    lines[-1]["val_loss"] = 2.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 21, "lo')
    start: dict[str, Any] = {
        "started": "2026-01-02T03:04:05+00:00",
        "from_step": 0,
        "total_steps": 40,
        "parameters": 9_670_000,
        "ranks": 2,
        "code": {"sha256": code},
        "environment": {"torch": "2.13.0"},
        "peak": {"tflops": 0.1, "source": "matmul"},
    }
    (folder / "starts.jsonl").write_text(json.dumps(start) + "\n")
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    slow = make_run(tmp_path / "runs" / "slow", lr=1e-4, falls=0.05)
    return slow, make_run(tmp_path / "runs" / "deep" / "fast", lr=1e-3, falls=0.1, code="b" * 64)


def sayso(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["runs", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_runs_are_found_in_folders_and_summed_up(two: tuple[Path, Path], tmp_path: Path) -> None:
    slow, fast = two
    assert find_runs({tmp_path: "here"}) == find_runs({slow: "slow", fast: "fast"}) == [fast, slow]
    run = read_run(slow)
    assert (run.step, run.total, run.starts, run.code) == (20, 40, 1, "a" * 12)
    assert run.loss == pytest.approx(5 - 0.05 * 15.5)  # the mean over the last ten
    assert run.val_loss == 2.5
    assert run.samples_per_second == pytest.approx(105)
    shown = sayso(tmp_path)
    assert re.search(r"fast .*mil_nce.*20/40 .*3\.4500 .*2\.5000 .*105\.0 .*2\.0% .*40\.0%", shown)
    assert [entry["step"] for entry in json.loads(sayso(tmp_path, "--json"))] == [20, 20]


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    make_run(tmp_path / "lr [1e-3] :fire:", lr=1e-3, falls=0.1)
    assert "lr [1e-3] :fire:" in sayso(tmp_path)


def test_two_runs_are_compared(two: tuple[Path, Path]) -> None:
    found = compare(*two)
    assert [(row.key, row.first, row.second) for row in found.recipe] == [("optimiser.lr", 1e-4, 1e-3)]
    assert [row.key for row in found.environment] == ["code.sha256"]
    shown = sayso(*two)
    assert re.search(r"optimiser\.lr .*0\.0001 .*0\.001", shown)
    assert re.search(r"loss .*4\.2250 .*3\.4500", shown)
    assert json.loads(sayso(*two, "--json"))["second"]["parameters"] == 9_670_000


def test_runs_at_a_url_are_listed_and_compared_under_their_urls(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    slow, fast = two
    elsewhere = Storage("memory://bucket/runs")
    for folder in two:
        (folder / "model.pt").write_bytes(b"large")
        for path in folder.iterdir():
            elsewhere.put_file(path, f"{folder.name}/{path.name}")
    names = [f"memory://bucket/runs/{folder.name}" for folder in (fast, slow)]
    assert [run["folder"] for run in json.loads(sayso("memory://bucket/runs", "--json"))] == names
    assert not list((tmp_path / "cache").rglob("model.pt"))  # nothing is fetched that is not read
    found = json.loads(sayso(slow, names[0], "--json"))
    assert [found[side]["folder"] for side in ("first", "second")] == [str(slow), names[0]]
    assert [row["key"] for row in found["recipe"]] == ["optimiser.lr"]


def test_curves_are_drawn(two: tuple[Path, Path], tmp_path: Path) -> None:
    sayso(*two, "--plot", tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (960, 540)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours  # a line each
    sayso(tmp_path, "--plot", tmp_path / "wait.html", "--figure", "data_wait")
    page = (tmp_path / "wait.html").read_text()
    assert page.count("<polyline") > 4
    assert all(str(folder) in page for folder in two)
    assert "http" not in page


def test_what_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    draw({"run": [(1, 4.0), (2, math.nan), (3, math.inf), (4, 2.0)]}, tmp_path / "val.html")
    page = (tmp_path / "val.html").read_text()
    assert not re.search(r"\b(nan|inf)\b", page)
    assert "run" in page


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["EMPTY"], InputError, r"no run in .*EMPTY: a run has recipe\.yaml and metrics\.jsonl"),
        (["RUNS", "nowhere"], InputError, r"no run in nowhere: a run has"),
        (["memory://nowhere/runs"], InputError, r"no run in memory://nowhere/runs: a run has"),
        (["RUNS", "--plot", "nowhere/loss.png"], ConfigError, r"nowhere/loss\.png: cannot be written \(No such file"),
        (["RUNS", "--plot", "nowhere/loss.html"], ConfigError, r"nowhere/loss\.html: cannot be written"),
        (["RUNS", "--plot", "loss.jpg"], ConfigError, r"loss\.jpg: a plot is a \.png or an \.html file"),
        (["RUNS", "--plot", "x.png", "--figure", "lss"], ConfigError, r"nothing to plot: no run .*'lss'"),
    ],
)
def test_what_cannot_be_shown_is_said(
    arguments: list[str], error: type[SaysoError], message: str, two: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "EMPTY").mkdir()
    places = {"EMPTY": tmp_path / "EMPTY", "RUNS": tmp_path / "runs"}
    with pytest.raises(error, match=message):
        sayso(*(places.get(argument, argument) for argument in arguments))
