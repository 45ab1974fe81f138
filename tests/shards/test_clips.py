"""What is made of samples of each kind, as they lie in a tar."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from sayso.errors import ConfigError, CorruptObject
from shards.clips import Clip, ClipSettings, make_clip
from shards.cut import Proxy
from shards.library import RawSample
from shards.sound import SoundSettings
from shards.write import Sample, canonical_json, index_tar, write_tar

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

SMALL = ClipSettings(frames=4, size=32, short_side=32, crop="center", flip=False, candidates=2)
LISTENING = SMALL.model_copy(update={"sound": SoundSettings(form="waveform")})
COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 250), (10, 10, 10)]


def stored(folder: Path, members: dict[str, bytes], texts: Sequence[str], **times: float) -> RawSample:
    """A sample that was written to a tar and read back by the tar's index."""
    facts: dict[str, Any] = {"video_id": "v", "start": 0.0, "end": 0.0, "clip_start": 0.0, "clip_end": 0.0, **times}
    facts["candidates"] = [{"narration_id": text, "start": 0.0, "end": 0.0, "text": text} for text in texts]
    write_tar([Sample("key", {**members, "json": canonical_json(facts)})], folder / "a.tar")
    (row,) = index_tar(folder / "a.tar").to_pylist()
    tar = (folder / "a.tar").read_bytes()
    read = {m["extension"]: tar[m["offset"] : m["offset"] + m["bytes"]] for m in row["members"]}
    del read["json"]
    return RawSample(row["key"], read, facts)


def jpeg(colour: tuple[int, int, int], width: int = 64, height: int = 48, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


def colours(clip: Clip) -> list[tuple[int, ...]]:
    """The one colour of each picture, to the nearest ten."""
    for frame in clip["frames"]:
        assert frame.float().std(dim=(0, 1)).max() < 3
    return [
        tuple(10 * round(value / 10) for value in frame.float().mean(dim=(0, 1)).tolist()) for frame in clip["frames"]
    ]


def test_an_image_is_one_frame_with_its_caption(tmp_path: Path) -> None:
    clip = make_clip(stored(tmp_path, {"jpg": jpeg(COLOURS[0])}, ["a red wall"]), SMALL, "0")
    assert clip["frames"].shape == (1, 32, 32, 3)
    assert clip["frames"].dtype == torch.uint8
    assert colours(clip) == [COLOURS[0]]
    assert clip["narrations"] == ["a red wall", ""]
    assert clip["narration_mask"].tolist() == [True, False]
    assert (clip["start"], clip["end"]) == (0, 0)


def test_a_documents_pictures_come_in_the_order_of_their_places(tmp_path: Path) -> None:
    members = {f"{i}.jpg": jpeg(COLOURS[i % 5], width=40 + 8 * i, height=90) for i in range(12)}
    text = "before" + "".join(f" <image> then {i}" for i in range(12))
    raw = stored(tmp_path, members, [text])
    whole = make_clip(raw, SMALL.model_copy(update={"frames": 12}), "0")
    assert colours(whole) == [COLOURS[i % 5] for i in range(12)]
    assert whole["narrations"][0] == text
    cut = make_clip(raw, SMALL, "0")
    assert colours(cut) == COLOURS[:4]
    assert cut["narrations"][0] == "before <image> then 0 <image> then 1 <image> then 2 <image> then 3 "


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_pictures_of_other_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    clip = make_clip(stored(tmp_path, {"jpg": jpeg((250, 250, 250), mode=mode)}, ["white"]), SMALL, "0")
    assert clip["frames"].shape == (1, 32, 32, 3)
    assert clip["frames"].float().mean() > 240


def test_a_still_is_cropped_as_a_film_is(tmp_path: Path) -> None:
    """Against cutting the same part out by hand, at a fraction of the picture's size and at its own."""
    y, x = np.mgrid[:480, :640]
    picture = np.stack([x * 255 // 639, y * 255 // 479, (x + y) % 256], axis=-1).astype(np.uint8)
    picture[..., 2] = 128 + 60 * np.sin(x / 50) * np.cos(y / 40)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=98, subsampling=0)
    raw = stored(tmp_path, {"jpg": file.getvalue()}, ["a pattern"])
    for size, short_side in ((448, 480), (112, 120), (28, 30)):
        settings = SMALL.model_copy(update={"size": size, "short_side": short_side})
        seen = make_clip(raw, settings, "0")["frames"][0].numpy().astype(int)
        by_hand = Image.fromarray(picture).crop((96, 16, 544, 464)).resize((size, size), Image.Resampling.BOX)
        assert np.abs(seen - np.asarray(by_hand).astype(int)).mean() < 2.5


def test_random_crops_differ_between_epochs_and_are_the_same_again(tmp_path: Path, proxy: Path) -> None:
    with Proxy(proxy) as source:
        data = source.cut(0, 5).data
    raw = stored(tmp_path, {"mp4": data}, ["now"], end=5.0, clip_end=5.0)
    for crop in ("random", "resized"):
        settings = SMALL.model_copy(update={"crop": crop, "short_side": 64, "flip": True, "start": "random"})
        epochs = [make_clip(raw, settings, f"0:{epoch}")["frames"] for epoch in range(6)]
        assert torch.equal(epochs[3], make_clip(raw, settings, "0:3")["frames"])
        assert len({frames.numpy().tobytes() for frames in epochs}) == 6


def test_sound_alone_has_no_frames(lab: Lab, tmp_path: Path) -> None:
    lab.make_sound(tmp_path / "sound.m4a", 8)
    members = {"m4a": (tmp_path / "sound.m4a").read_bytes()}
    raw = stored(tmp_path, members, ["beep"], start=100.5, end=107.5, clip_start=100.0, clip_end=108.0)
    sound = SoundSettings(form="waveform", seconds=3.0)
    for seed in range(5):
        clip = make_clip(raw, SMALL.model_copy(update={"sound": sound, "start": "random"}), f"{seed}")
        assert clip["frames"].shape == (0, 32, 32, 3)
        assert 100.5 <= clip["start"] <= 104.5
        assert clip["end"] == pytest.approx(clip["start"] + 3)
        assert clip["sound_mask"].all()
        loud = np.flatnonzero(clip["waveform"].abs().numpy() > 0.15)
        quiet_before = loud[1:][np.diff(loud) > 8000]
        assert len(quiet_before) >= 2
        for place in quiet_before:
            time = clip["start"] + place / 16000
            assert time == pytest.approx(round(time), abs=0.005)


def test_a_still_has_no_sound(tmp_path: Path) -> None:
    clip = make_clip(stored(tmp_path, {"jpg": jpeg(COLOURS[0])}, ["red"]), LISTENING, "0")
    assert clip["waveform"].shape == (6400,)
    assert not clip["sound_mask"].any()


def test_a_run_that_asks_nothing_of_samples_of_sound_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.make_sound(tmp_path / "sound.m4a", 2)
    raw = stored(tmp_path, {"m4a": (tmp_path / "sound.m4a").read_bytes()}, ["beep"], end=2.0, clip_end=2.0)
    with pytest.raises(ConfigError, match=r"sound\.form"):
        make_clip(raw, SMALL, "0")


def bomb() -> bytes:
    """A small JPEG whose header says that it is 40000 x 40000."""
    data = bytearray(jpeg(COLOURS[0]))
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = (40000).to_bytes(2, "big") * 2
    return bytes(data)


@pytest.mark.parametrize("data", [b"", b"no picture" * 20, jpeg(COLOURS[0])[:400], bomb()], ids=len)
def test_what_is_no_picture_of_ours_is_called_corrupt(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorruptObject, match="picture"):
        make_clip(stored(tmp_path, {"jpg": data}, ["?"]), SMALL, "0")


def test_sound_that_cannot_be_read_is_called_corrupt(tmp_path: Path) -> None:
    raw = stored(tmp_path, {"m4a": b"no sound" * 100}, ["?"], end=5.0, clip_end=5.0)
    with pytest.raises(CorruptObject, match="clip"):
        make_clip(raw, LISTENING, "0")
