"""The list of stages, and what --dry-run says of new shards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.pipeline import Pipeline, describe, stages_of
from sayso.errors import RootError
from sayso.root import Root
from sayso.rows import Document, Media, Narration, Page, Picture, SourceFacts
from tests.made import put, video

OF_VIDEOS = ["fetch", "transcribe", "captions", "align"]


def names(root: Root, pipeline: Pipeline | None = None) -> list[str]:
    return [stage.name for stage in stages_of(root, pipeline or Pipeline())]


def test_stages_of_documents_are_there_where_documents_are(root: Root) -> None:
    assert names(root) == [*OF_VIDEOS, "shard"]
    assert names(root, Pipeline(documents=["a.csv"])) == ["images", "shard"]
    assert names(root, Pipeline(documents=["a.csv"], videos=["v"])) == [*OF_VIDEOS, "images", "shard"]
    put(root, [Page(document_id="document:a", text="<image>a", images=["http://x/a"])], "discover")
    assert names(root) == ["images", "shard"]
    put(root, [video("site:a")], "discover")
    assert names(root) == [*OF_VIDEOS, "images", "shard"]


def media(name: str, *, width: int) -> Media:
    digest = hashlib.sha256(name.encode()).hexdigest()
    source = SourceFacts(sha256=digest, bytes=1, container="mp4", duration=7200)
    return Media(
        video_id=name, key=f"media/{name}/proxy.mp4", sha256=digest, bytes=7200_000, duration=7200, width=width,
        height=width, fps=10, audio=True, source=source,
    )  # fmt: skip


def narration(name: str, start: float) -> Narration:
    return Narration(
        narration_id=f"{name}@{start}", video_id=name, start=start, end=start + 36, text="stir", source="asr:x",
        language="en", kept=True,
    )  # fmt: skip


def test_a_dry_run_tells_the_shards_that_it_would_make(root: Root) -> None:
    videos = [f"site:{number}" for number in range(12)]
    put(root, [*(media(name, width=256) for name in videos), media("site:sound", width=0)], "fetch")
    put(root, [narration(name, 36.0 * place) for name in [*videos, "site:sound"] for place in range(25)], "align")
    put(root, [narration("site:gone", 0.0)], "align")
    pipeline = Pipeline.model_validate({"shard": {"samples_per_shard": 50, "val": 0.4, "test": 0.2}})
    (would,) = describe(pipeline, root.url, ["shard"])["would"]
    new = would["new_shards"]
    assert (new["samples"], new["hours"]) == (300, 3.0)
    assert new["left_out"] == {"no_picture": 25, "no_media": 1}
    assert set(new["splits"]) == {"train", "val", "test"}
    for total in ("shards", "samples", "bytes"):
        assert sum(split[total] for split in new["splits"].values()) == new[total]
    assert sum(split["hours"] for split in new["splits"].values()) == pytest.approx(3.0)
    # A clip has up to a second before its window, and its proxy has 1000 bytes a second.
    assert 300 * 36_000 < new["bytes"] < 300 * (37_000 + 4000)
    assert not root.table(Narration).read(["kept"])["kept"].null_count
    assert root.storage.list("shards") == []


def test_a_dry_run_tells_of_pictures_too(root: Root) -> None:
    stored = root.storage.put_bytes(b"jpeg", "media/document:a/0.jpg")
    image = Picture(**stored.model_dump(), width=9, height=9, url="http://x/a")
    documents = [
        Document(document_id="document:a", text="<image>a", images=[image], lost=[]),
        Document(document_id="document:b", text="<image><image>b", images=[image, image], lost=[]),
    ]
    put(root, documents, "images")
    pipeline = Pipeline.model_validate({"shard": {"kind": "image", "export": "pictures"}})
    (would,) = describe(pipeline, root.url, ["shard"])["would"]
    assert (would["new_shards"]["samples"], would["new_shards"]["hours"]) == (1, 0.0)
    assert would["new_shards"]["left_out"] == {"several_pictures": 1}


@pytest.mark.parametrize("stage", ["fetch", "features", "shard"])
def test_a_stage_makes_no_root_of_a_mistyped_name(stage: str, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, [stage, "--root", str(tmp_path / "typo")])
    assert isinstance(ran.exception, RootError), ran.output
    assert "typo: not a sayso root" in str(ran.exception)
    assert not (tmp_path / "typo").exists()
