"""Sound, captioned pictures and interleaved pages, from a user's files to tars, through the command."""

from __future__ import annotations

import gc
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import webdataset
from PIL import Image

from sayso.root import Root
from sayso.rows import Shard
from shards.reader import ClipReader, ReaderSettings

Command = Callable[..., Any]
# webdataset leaves the tar that it reads to the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


def samples(root: Path, export: str) -> dict[str, dict[str, Any]]:
    """The samples of an export as webdataset has them and as our reader has them, which must be the same."""
    opened = Root(str(root)).open()
    found: dict[str, dict[str, Any]] = {}
    ours: dict[str, dict[str, Any]] = {}
    shards = list(opened.table(Shard).rows(export=export))
    for shard in shards:
        read = webdataset.WebDataset(opened.storage.path(shard.key), shardshuffle=False)
        found |= {sample["__key__"]: {k: v for k, v in sample.items() if not k.startswith("__")} for sample in read}
    for split in {shard.split for shard in shards}:
        settings = ReaderSettings(per_video=False)
        for raw in ClipReader(f"{root}/shards/{export}", split=split, settings=settings, seed=1).raw():
            ours[raw.key] = {**raw.members, "json": raw.facts}
    gc.collect()
    for sample in found.values():
        sample["json"] = json.loads(sample["json"])
    assert ours == found
    return found


def shade(data: bytes) -> tuple[int, ...]:
    """The colour in the middle of a picture, roughly."""
    with Image.open(io.BytesIO(data)) as opened:
        pixel = opened.getpixel((opened.width // 2, opened.height // 2))
    assert isinstance(pixel, tuple)
    return tuple(round(value / 16) for value in pixel)


def colour(number: int) -> tuple[int, int, int]:
    return (16 * number, 240 - 16 * number, 128)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures 0 to 9 of several formats, each of a colour of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(10):
        Image.new("RGB", (500, 400), colour(number)).save(folder / f"{number}.{('jpg', 'png', 'webp')[number % 3]}")
    (folder / "broken.jpg").write_text("not a picture")
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def site(pictures: Path) -> Iterator[str]:
    """The pictures' folder as a web site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(pictures))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def name(pictures: Path, number: int) -> str:
    return next(pictures.glob(f"{number}.*")).name


def test_captioned_pictures_of_a_folder_and_pages_of_a_site_become_shards_of_one_root(
    sayso: Command, pictures: Path, site: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    manifest = pictures / "captions.csv"
    rows = [f'{name(pictures, number)},"picture {number}, plain"' for number in range(8)]
    manifest.write_text("\n".join(["image,caption", *rows, "broken.jpg,broken", "0.jpg,", ""]))
    ran = sayso("run", "--documents", manifest, "--root", root, "shard.kind=image", "shard.export=pictures", "--json")
    assert ran.code == 0, ran.err
    stages = {stage["name"]: stage for stage in ran.json()["stages"]}
    assert list(stages) == ["discover", "images", "shard"]
    assert (stages["images"]["done"], stages["images"]["skipped"]) == (8, {"not_a_picture": 1})
    assert "rows left out: no_text 1" in ran.err
    found = samples(root, "pictures")
    assert {sample["json"]["text"] for sample in found.values()} == {f"picture {n}, plain" for n in range(8)}
    for sample in found.values():
        number = int(sample["json"]["text"].split()[1][0])
        assert np.allclose(shade(sample["jpg"]), [value / 16 for value in colour(number)], atol=1)

    pages = tmp_path / "pages.jsonl"
    at = [f"{site}/{name(pictures, number)}" for number in range(4)]
    lines = [
        {"texts": ["Take this.", None, "Then that.", None], "images": [None, at[0], None, at[1]]},
        {"text": "a sequence", "images": at[:4]},
        {"text": "one is <image> there, <image> one is gone", "images": [at[2], f"{site}/gone.png"]},
    ]
    pages.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--root", root, "--json", "sites.allow_private=true", "shard.kind=document", "shard.export=pages"]
    ran = sayso("run", "--documents", pages, *arguments)
    assert ran.code == 0, ran.err
    texts = {sample["json"]["text"]: sample for sample in samples(root, "pages").values()}
    assert len(texts) == 3 + 8, "the captioned pictures are documents too"
    interleaved = texts["Take this.\n\n<image>\n\nThen that.\n\n<image>"]
    assert [shade(interleaved[f"{place}.jpg"]) for place in range(2)] == [
        shade((pictures / name(pictures, number)).read_bytes()) for number in range(2)
    ]
    assert texts["<image>" * 4 + "a sequence"]["json"]["images"] == 4
    assert "1.jpg" not in texts["one is <image> there,  one is gone"]
    assert len(samples(root, "pictures")) == 8
    assert sayso("verify", "--root", root).code == 0


def test_a_second_export_of_the_same_root_has_the_sound(sayso: Command, undisturbed: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(undisturbed, root)
    ran = sayso("shard", "--root", root, "shard.kind=audio", "shard.export=sound", "--json")
    assert ran.code == 0, ran.err
    clips, sounds = samples(root, "clips"), samples(root, "sound")
    assert sounds.keys() == clips.keys()
    for key, sample in sounds.items():
        with av.open(io.BytesIO(sample["m4a"]), "r") as container:
            assert [stream.type for stream in container.streams] == ["audio"]
            heard = sum(frame.samples for frame in container.decode(audio=0)) / 16000
        facts = sample["json"]
        assert facts["candidates"] == clips[key]["json"]["candidates"]
        assert heard == pytest.approx(facts["clip_end"] - facts["clip_start"], abs=0.065)
    assert sayso("verify", "--root", root).code == 0
    ran = sayso("shard", "--root", root, "shard.kind=audio")
    assert (ran.code, ran.err.count("kind is clip, not audio")) == (2, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--documents", "gone.csv"], "gone.csv: no such file"),
        (["--documents", "VIDEOS"], "give a manifest of pictures with texts"),
        ([], "give --videos or --documents"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(
    sayso: Command, small_videos: Path, tmp_path: Path, given: list[str], said: str
) -> None:
    ran = sayso(
        "run", "--root", tmp_path / "root", *(str(small_videos) if each == "VIDEOS" else each for each in given)
    )
    assert ran.code == 2
    (line,) = [line for line in ran.err.splitlines() if line.startswith("sayso: ")]
    assert said in line


def test_a_stage_that_the_root_has_nothing_for_says_so(sayso: Command, undisturbed: Path) -> None:
    ran = sayso("images", "--root", undisturbed)
    assert ran.code == 2
    assert "nothing for images" in ran.err
