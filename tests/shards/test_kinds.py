"""Shards of sound, of captioned pictures and of documents: planned, made, checked, read by others and by our reader."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
import webdataset
from PIL import Image

from sayso.errors import ConfigError, Permanent
from sayso.root import Root
from sayso.rows import Document, Picture, Plan, Shard
from sayso.writer import Writer
from shards import plan as planning
from shards.cut import SoundTrack
from shards.plan import left_out, plan_export, propose, summarise
from shards.reader import ClipReader, ReaderSettings
from shards.settings import ShardSettings
from shards.stage import MakeShards
from shards.verify import verify_shard
from tests.conftest import S3

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

IDS = [f"site:v{number}" for number in range(6)]
SOUND = ShardSettings(export="sound", kind="audio", val=0, test=0)
PICTURES = ShardSettings(export="pictures", kind="image", samples_per_shard=5, val=0.2, test=0.2)
PAGES = PICTURES.model_copy(update={"export": "pages", "kind": "document"})


def picture(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), (shade % 256, shade // 256, 90)).save(data, "JPEG")
    return data.getvalue()


def add_documents(root: Root, lab: Lab, texts: dict[str, str], shades: Sequence[int] | None = None) -> None:
    """Documents by their ids; each picture has a shade of its own unless `shades` says which."""
    rows = []
    for name, text in texts.items():
        images = []
        for place in range(text.count("<image>")):
            shade = shades[place] if shades else int(hashlib.sha256(f"{name} {place}".encode()).hexdigest()[:4], 16)
            stored = root.storage.put_bytes(picture(shade), f"media/document:{name}/{place}.jpg")
            images.append(Picture(**stored.model_dump(), width=40, height=30, url=f"http://x/{name}/{place}"))
        rows.append(Document(document_id=f"document:{name}", text=text, images=images, lost=[], task_id="tyre"))
    lab.append(root, rows)


def captions(count: int, first: int = 0) -> dict[str, str]:
    return {f"{number:03}": f"<image>caption {number}" for number in range(first, first + count)}


# webdataset leaves the tar that it reads to the garbage collector to close.
quiet = pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")


def read_with_webdataset(root: Root, shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """What webdataset decodes of shards: pictures as arrays of uint8."""
    found = []
    for shard in shards:
        found += webdataset.WebDataset(root.storage.path(shard.key), shardshuffle=False).decode("rgb8")
    gc.collect()
    return found


def plain(root: Root, shards: Sequence[Shard]) -> list[dict[str, bytes]]:
    """The same, not decoded, read off the tars."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in shards:
        with tarfile.open(root.storage.path(shard.key)) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[extension] = file.read()
    return list(found.values())


def read_with_our_reader(root: Root, shards: Sequence[Shard]) -> dict[str, dict[str, bytes]]:
    """The members of each sample but its JSON, by key."""
    found = {}
    for split in sorted({shard.split for shard in shards}):
        url, settings = f"{root.url}/shards/{shards[0].export}", ReaderSettings(per_video=False)
        for raw in ClipReader(url, split=split, settings=settings, seed=1).raw():
            found[raw.key] = dict(raw.members)
    return found


def whole(root: Root, shards: Sequence[Shard]) -> bool:
    return not [problem for shard in shards for problem in verify_shard(root, shard)]


# Sound


def add_sound(root: Root, lab: Lab, video: str, *, audio: bool = True, width: int = 320) -> None:
    row = lab.media_row(video, b"proxy", 12, width=width)
    lab.append(root, [row.model_copy(update={"audio": audio})])
    lab.append(root, [lab.narration(video, 1.0, 2.0)])


def test_for_sound_a_video_needs_no_picture(lab: Lab, root: Root) -> None:
    add_sound(root, lab, IDS[0])
    add_sound(root, lab, IDS[1], width=0)
    add_sound(root, lab, IDS[2], audio=False)
    clips, sounds = (summarise(propose(root, settings)) for settings in (ShardSettings(val=0, test=0), SOUND))
    assert (clips.total.samples, clips.dropped) == (2, {"no_picture": 1})
    assert (sounds.total.samples, sounds.dropped) == (2, {"no_sound": 1})
    assert sounds.total.bytes <= clips.total.bytes


@quiet
def test_sound_is_cut_to_the_packet_and_keeps_its_time(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS[:2], proxy.read_bytes(), 12)
    shards = lab.make_shards(root, SOUND)
    assert whole(root, shards)
    samples = read_with_webdataset(root, shards)
    assert len(samples) == 12
    for sample in samples:
        facts, data = sample["json"], sample["m4a"]
        with av.open(io.BytesIO(data), "r") as container:
            assert [stream.type for stream in container.streams] == ["audio"]
            frames = list(container.decode(audio=0))
            seconds = sum(frame.samples for frame in frames) / 16000
        assert frames[0].pts == 0
        assert facts["start"] - 0.0641 < facts["clip_start"] <= facts["start"]
        assert facts["end"] <= facts["clip_end"] < facts["end"] + 0.0641
        # Of the last packet of a source only a part may be meant to sound.
        assert 0 <= seconds - (facts["clip_end"] - facts["clip_start"]) + 1e-6 < 0.0641
        beeps = [beep + facts["clip_start"] for beep in lab.beeps(data)]
        inside = [beep for beep in beeps if beep > facts["clip_start"] + 0.12]
        assert len(inside) >= 4
        assert all(abs(beep - round(beep)) < 0.02 for beep in inside)
    assert read_with_our_reader(root, shards) == {s["__key__"]: {"m4a": s["m4a"]} for s in samples}


def test_sound_is_cut_where_there_is_no_picture(lab: Lab, root: Root, proxy: Path) -> None:
    with SoundTrack(proxy) as track:
        alone = track.cut(0, 12).data
    root.storage.put_bytes(alone, f"media/{IDS[0]}/proxy.mp4")
    lab.append(root, [lab.media_row(IDS[0], alone, 12, width=0)])
    lab.append(root, [lab.narration(IDS[0], 4.2, 5.5)])
    shards = lab.make_shards(root, SOUND)
    assert whole(root, shards)
    (members,) = read_with_our_reader(root, shards).values()
    (facts,) = [json.loads(sample["json"]) for sample in plain(root, shards)]
    # The window is [2.35, 7.35): beeps at 3, 4, ... 7.
    beeps = [beep + facts["clip_start"] for beep in lab.beeps(members["m4a"])]
    assert beeps == pytest.approx([3, 4, 5, 6, 7], abs=0.02)


def test_sound_is_the_same_wherever_the_cut_begins(proxy: Path) -> None:
    """What a packet decodes to depends on the one before it: that one goes along, hidden."""

    def wave(data: bytes) -> np.ndarray[Any, Any]:
        with av.open(io.BytesIO(data), "r") as container:
            return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])

    with SoundTrack(proxy) as track:
        full = wave(track.cut(0, 12).data)
        for start in (0.9, 3.0, 6.97):
            clip = track.cut(start, start + 2)
            found, begin = wave(clip.data), round(clip.start * 16000)
            assert np.abs(found - full[begin : begin + len(found)]).max() < 0.01


# Pictures and documents


@quiet
def test_captioned_pictures_are_samples(lab: Lab, root: Root) -> None:
    add_documents(root, lab, {**captions(12), "page": "<image>two<image>"})
    rest = next(root.table(Document).rows(document_id="document:000"))
    rest = rest.model_copy(update={"document_id": "document:rest", "text": "of two <image>", "lost": ["http_404 u"]})
    lab.append(root, [rest])
    shards = lab.make_shards(root, PICTURES)
    assert whole(root, shards)
    assert summarise(propose(root, PICTURES)).dropped == {"several_pictures": 2}
    assert {shard.split for shard in shards} == {"train", "val", "test"}
    assert all(shard.seconds == 0 and shard.samples <= 5 for shard in shards)
    samples = read_with_webdataset(root, shards)
    assert sorted(sample["json"]["text"] for sample in samples) == sorted(f"caption {number}" for number in range(12))
    assert {sample["jpg"].shape for sample in samples} == {(30, 40, 3)}
    assert {sample["json"]["video_id"] for sample in samples} == {f"document:{name}" for name in captions(12)}
    facts = samples[0]["json"]
    assert facts == {
        "video_id": facts["video_id"],
        **dict.fromkeys(("start", "end", "clip_start", "clip_end"), 0.0),
        "text": facts["text"],
        "language": None,
        "task_id": "tyre",
        "candidates": [
            {
                "narration_id": facts["video_id"],
                "start": 0.0,
                "end": 0.0,
                "text": facts["text"],
                "confidence": None,
            }
        ],
        "images": 1,
    }
    for members in read_with_our_reader(root, shards).values():
        assert list(members) == ["jpg"]


@quiet
def test_documents_have_a_place_in_the_text_for_each_picture(lab: Lab, root: Root) -> None:
    texts = {"a": "<image>first<image>then", "b": "words<image>", "c": "<image>" * 12 + "twelve"}
    add_documents(root, lab, texts)
    shards = lab.make_shards(root, PAGES)
    assert whole(root, shards)
    samples = {sample["json"]["video_id"]: sample for sample in read_with_webdataset(root, shards)}
    documents = {document.document_id: document for document in root.table(Document).rows()}
    ours = read_with_our_reader(root, shards)
    for name, text in texts.items():
        sample = samples[f"document:{name}"]
        assert sample["json"]["text"] == text
        assert sample["json"]["images"] == text.count("<image>")
        stored = [root.storage.read(image.key) for image in documents[f"document:{name}"].images]
        assert ours[sample["__key__"]] == {f"{place}.jpg": data for place, data in enumerate(stored)}
        for place, data in enumerate(stored):
            with Image.open(io.BytesIO(data)) as opened:
                assert np.array_equal(sample[f"{place}.jpg"], np.asarray(opened))


def test_documents_in_a_store_become_the_same_shards(lab: Lab, root: Root, s3: S3) -> None:
    found = []
    for each in (root, Root(s3.url("documents")).create()):
        add_documents(each, lab, {**captions(70), "a": "<image>" * 9 + "nine"})
        shards = lab.make_shards(each, PAGES.model_copy(update={"samples_per_shard": 100}))
        assert whole(each, shards)
        found.append({shard.shard: shard.sha256 for shard in shards})
    assert found[0] == found[1]


@pytest.mark.parametrize("settings", [SOUND, PICTURES, PAGES], ids=lambda settings: settings.kind)
def test_shards_of_each_kind_have_the_same_bytes_made_again(
    settings: ShardSettings, lab: Lab, proxy: Path, tmp_path: Path
) -> None:
    found = []
    for name in ("a", "b"):
        root = Root(str(tmp_path / name)).create()
        lab.add_videos(root, IDS[:2], proxy.read_bytes(), 12)
        add_documents(root, lab, dict(sorted(captions(9).items(), reverse=name == "b")))
        lab.make_shards(root, settings)
        found.append({key: root.storage.read(key) for key in root.storage.list("shards")})
    assert found[0] == found[1]
    assert len(found[0]) > 3


def test_documents_that_come_later_make_new_shards(lab: Lab, root: Root) -> None:
    add_documents(root, lab, captions(20))
    lab.make_shards(root, PICTURES)
    old = {plan.shard: plan for plan in root.table(Plan).rows()}
    assert plan_export(root, PICTURES).total.shards == 0
    add_documents(root, lab, captions(20, first=20))
    lab.make_shards(root, PICTURES)
    now = {plan.shard: plan for plan in root.table(Plan).rows()}
    assert old.items() < now.items()
    planned = [sample.video_id for plan in now.values() for sample in plan.samples]
    assert sorted(planned) == sorted(f"document:{name}" for name in captions(40))
    assert len({plan.version for plan in now.values()}) == 2


def test_of_documents_with_the_same_text_and_pictures_one_is_planned(lab: Lab, root: Root) -> None:
    add_documents(root, lab, {"a": "<image>same", "b": "<image>same", "c": "<image>other"}, shades=[7])
    assert plan_export(root, PICTURES).dropped == {"duplicate": 1}
    assert {identity: failure.message for identity, failure in left_out(root).items()} == {
        "document:b": "same bytes as document:a"
    }


def test_one_root_has_several_exports_each_with_its_settings(lab: Lab, root: Root, proxy: Path) -> None:
    lab.add_videos(root, IDS[:2], proxy.read_bytes(), 12)
    add_documents(root, lab, captions(3))
    for settings in (ShardSettings(val=0, test=0), SOUND, PICTURES, PAGES):
        assert lab.make_shards(root, settings)
    exports = {shard.export for shard in root.table(Shard).rows()}
    assert exports == {"clips", "sound", "pictures", "pages"}
    for export in exports:
        assert json.loads(root.storage.read(f"shards/{export}/manifest.json"))["export"] == export
    with pytest.raises(ConfigError, match="kind is image, not audio"):
        plan_export(root, PICTURES.model_copy(update={"kind": "audio"}))


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_stored_picture_that_is_not_whole_is_named(lab: Lab, root: Root, damage: str) -> None:
    add_documents(root, lab, captions(1))
    plan_export(root, PICTURES)
    key = "media/document:000/0.jpg"
    data = bytearray(root.storage.read(key))
    root.storage.remove(key)
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        root.storage.put_bytes(bytes(data), key)
    stage = MakeShards(root, PICTURES)
    with pytest.raises(Permanent, match=key) as caught:
        stage(next(iter(stage.inputs(stage.input_keys().to_pylist()))))
    assert caught.value.reason == "corrupt_picture"
    assert not [name for name in root.storage.list("shards") if name.endswith(".tar")]


# Planning in pieces


def planned(root: Root) -> dict[str, list[str]]:
    return {plan.shard: [sample.key for sample in plan.samples] for plan in root.table(Plan).rows()}


@pytest.mark.parametrize("kind", ["clip", "image"])
def test_planning_killed_between_two_commits_is_gone_on_with(
    kind: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some at a time or all at once, and killed after any commit: the same shards."""
    settings = ShardSettings.model_validate(
        {"kind": kind, "export": kind, "samples_per_shard": 7, "val": 0.2, "test": 0.2}
    )

    def filled(name: str) -> Root:
        root = Root(str(tmp_path / name)).create()
        ids = [f"site:v{number:02}" for number in range(20)]
        lab.append(root, [lab.media_row(video, b"proxy" * 99, 60) for video in ids])
        lab.append(root, [lab.narration(video, t, t + 1) for video in ids for t in range(0, 40, 4)])
        add_documents(root, lab, captions(60))
        return root

    at_once = filled("at once")
    plan_export(at_once, settings)
    monkeypatch.setattr(planning, "_SAMPLES_A_COMMIT", 20)
    monkeypatch.setattr(planning, "_SAMPLES_AT_A_TIME", 30)
    in_pieces = filled("in pieces")
    assert plan_export(in_pieces, settings).total.shards == len(planned(at_once))
    commits = in_pieces.table(Plan).version()
    assert commits > 2
    assert planned(in_pieces) == planned(at_once)

    append = Writer.append
    for survived in range(1, commits):
        done = 0

        def dying(*arguments: Any) -> None:
            nonlocal done
            if done == survived:  # noqa: B023
                raise KeyboardInterrupt
            append(*arguments)
            done += 1

        root = filled(f"killed after {survived}")
        with monkeypatch.context() as patch:
            patch.setattr(Writer, "append", dying)
            with pytest.raises(KeyboardInterrupt):
                plan_export(root, settings)
        assert 0 < len(planned(root)) < len(planned(at_once))
        plan_export(root, settings)
        assert planned(root) == planned(at_once)
