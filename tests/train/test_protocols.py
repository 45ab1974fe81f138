"""The published protocols: their files read strictly, their figures equal to what is computed here by other means."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from sayso.errors import ConfigError, CorruptObject, InputError
from sayso.root import Root
from shards.crop import Crop
from shards.decode import decode
from tests.films import COLOURS, film, random_model
from train.evaluate.crosstask import Annotated, CrossTask, Tally, bin_starts, read_tasks
from train.evaluate.embed import Embedder
from train.evaluate.hmdb51 import HMDB51, Labelled, classify
from train.evaluate.pairs import Pair
from train.evaluate.protocol import Protocol, Report, evaluate
from train.evaluate.text_to_clip import MSRVTT, YouCook2
from train.evaluate.videos import videos_in_root
from train.weights import load_model


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(load_model(random_model(tmp_path_factory.mktemp("model"))), "cpu")


def measure(protocol: Protocol, embedder: Embedder, root: Root, windows: int | None = None) -> Report:
    videos = videos_in_root(protocol.video_ids(), root)
    return evaluate(protocol, embedder, videos, windows=windows, annotations=Path("annotations"), model="model")


def written(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


# What is published


def test_the_published_files_read_with_the_counts_of_the_papers(published: Path) -> None:
    """The layouts are shown below; these are the real files."""
    youcook2 = YouCook2.read(published / "youcook2_val.csv")
    assert (len(youcook2.pairs), len(set(youcook2.video_ids()))) == (3350, 436)
    msrvtt = MSRVTT.read(published / "msrvtt_test_1kA.csv")
    assert len(msrvtt.pairs) == len(set(msrvtt.video_ids())) == 1000
    assert msrvtt.pairs[0] == Pair("video9770", 0.0, float("inf"), "a person is connecting something to system")
    hmdb51 = HMDB51.read(published / "hmdb51.csv")
    assert len(hmdb51.labelled) == 6766
    assert len({video.action for video in hmdb51.labelled}) == 51
    assert hmdb51.labelled[0] == Labelled("April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", ("1", "1", "2"))
    for split in range(3):
        parts = Counter((video.action, video.splits[split]) for video in hmdb51.labelled)
        assert {count for (_, part), count in parts.items() if part == "1"} == {70}
        assert {count for (_, part), count in parts.items() if part == "2"} == {30}


@pytest.mark.parametrize(
    ("protocol", "lines", "message"),
    [
        (YouCook2, ["end,start,task,text"], "no column video_id; the columns video_id, start, end, text are needed"),
        (YouCook2, ["end,start,task,text,video_id", "9,x,1,cut,a"], "line 2: start 'x' and end '9' must be seconds"),
        (MSRVTT, ["key,vid_key,video_id,sentence", "r,m,v1,one", "r,m,v1,two"], "line 3: v1 again; .* one sentence"),
        (MSRVTT, ["key,vid_key,video_id,sentence", "r,m,v1,"], "line 2: no sentence"),
        (MSRVTT, ["key,vid_key,video_id,sentence", "r,m,v1,  "], "line 2: no sentence"),
        (
            MSRVTT,
            ["key,vid_key,video_id,sentence", "r,m,v1,cut, then stir"],
            "line 2: more values than columns; .*quot",
        ),
        (YouCook2, ["end,start,task,text,video_id", *["9,1,1,cut,a"] * 2], "line 3: the same clip and text again"),
        (HMDB51, ["video_id,label,split1,split2,split3", "a.avi,run_test,1,2,3"], "line 2: splits 1, 2, 3; each must"),
        (HMDB51, ["video_id,label,split1,split2,split3"], "no rows in it"),
        (HMDB51, ["video_id,label,split1,split2,split3", *["a.avi,run_test,1,2,0"] * 2], "a.avi again"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    protocol: type[Protocol], lines: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        protocol.read(written(tmp_path / "file.csv", *lines))


# Retrieval

TEXTS = [f"now the {name} one moves" for name in COLOURS]


def by_hand(embedder: Embedder, root: Root, spans: list[tuple[str, float, float]], windows: int) -> torch.Tensor:
    """Scores of TEXTS and clips, from the model itself."""
    model, vocabulary = embedder.trained.model, embedder.trained.vocabulary
    clips = []
    for name, start, end in spans:
        data = root.storage.read(f"media/demo_{name}/proxy.mp4")
        starts = np.linspace(start, max(start, end - 0.8), windows)
        frames = np.stack([decode(data, [s + i / 5 for i in range(4)], Crop(32, 32)) for s in starts])
        pixels = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 255
        clips.append(model.video(pixels)["embedding"].mean(dim=0))
    return torch.as_tensor(model.text(vocabulary.encode(TEXTS)) @ torch.stack(clips).T)


@torch.inference_mode()
def test_a_clip_is_the_mean_of_its_windows_and_a_score_the_dot_product(
    embedder: Embedder, small_root: Root, tmp_path: Path
) -> None:
    clips = [("red0", 1.0, 6.0), ("green1", 0.0, 8.0), ("blue2", 3.0, 3.5), ("white3", 2.0, 5.0)]
    rows = [f"{end},{start},1,{text},{name}" for (name, start, end), text in zip(clips, TEXTS, strict=True)]
    found = measure(
        YouCook2.read(written(tmp_path / "val.csv", "end,start,task,text,video_id", *rows)), embedder, small_root, 3
    )
    scores = by_hand(embedder, small_root, clips, windows=3).numpy()
    assert len(np.unique(scores)) == 16, "were all the same, nothing would be shown"
    places = [1 + sum(row > row[i]) for i, row in enumerate(scores)]
    assert found.metrics["r1"] == 100 * sum(place <= 1 for place in places) / 4
    assert found.metrics["median_rank"] == np.median(places)
    assert found.parts["ties counted as won"] == found.metrics
    assert (found.used, found.of, found.videos.found, found.missing, found.windows) == (4, 4, 4, {}, 3)
    assert found.chance["r1"] == 25


def test_embeddings_are_those_of_the_model(embedder: Embedder, small_root: Root) -> None:
    frames = torch.randint(0, 255, (19, 4, 32, 32, 3), dtype=torch.uint8)  # more than are looked at at once
    pixels = frames.permute(0, 4, 1, 2, 3).float() / 255
    with torch.inference_mode():
        expected = embedder.trained.model.video(pixels)
    for output, right in expected.items():  # batches of another size round otherwise
        torch.testing.assert_close(
            embedder.windows(frames, output), right, rtol=0, atol=1e-4 * float(right.abs().max())
        )


def test_what_is_missing_is_named_and_figures_rest_on_the_rest(
    embedder: Embedder, small_root: Root, tmp_path: Path
) -> None:
    rows = [f"r{n},m{n},{name},{text}" for n, (name, text) in enumerate(zip(COLOURS, TEXTS, strict=True))]
    rows = [row.replace("red", "red0", 1) for row in rows]  # the others are named without a number and so not there
    found = measure(
        MSRVTT.read(written(tmp_path / "test.csv", "key,vid_key,video_id,sentence", *rows)), embedder, small_root
    )
    assert (found.used, found.of) == (1, 4)
    assert found.videos.model_dump() == {"found": 1, "of": 4}
    assert found.missing == dict.fromkeys(["green", "blue", "white"], "not in the root")
    assert found.metrics["r1"] == found.chance["r1"] == 100
    assert found.windows == 10
    with pytest.raises(InputError, match=r"none of its 2 videos is there \(gone: not in the root\)"):
        measure(YouCook2([Pair("gone", 0, 1, "a"), Pair("lost", 0, 1, "b")]), embedder, small_root)


def test_a_clip_behind_the_end_of_its_video_is_not_counted(embedder: Embedder, small_root: Root) -> None:
    pairs = [Pair("red0", 1, 3, "red"), Pair("red0", 8.0, 9, "blue"), Pair("red0", 7, 90, "white")]
    found = measure(YouCook2(pairs), embedder, small_root, 2)
    assert (found.used, found.of) == (2, 3)
    with pytest.raises(InputError, match="every clip begins behind the end of its video"):
        measure(YouCook2(pairs[1:2]), embedder, small_root, 2)


def test_videos_are_found_by_the_id_of_their_site_and_by_the_name_of_their_file(small_root: Root) -> None:
    found = videos_in_root(["demo:red0", "red0", "gone", "red0"], small_root)
    assert found.there["red0"] == found.there["demo:red0"]
    assert found.missing == {"gone": "not in the root"}


def test_proxies_with_too_few_pictures_for_the_model_are_refused(small_root: Root) -> None:
    videos = videos_in_root(["red0"], small_root)
    videos.check_fps(10)
    with pytest.raises(InputError, match=r"red0 has 10 frames a second .* 16; .*fetch\.profile\.fps=16"):
        videos.check_fps(16)


def test_a_broken_proxy_is_named(embedder: Embedder, own_root: Root) -> None:
    own_root.storage.put_bytes(b"no video", "media/demo_red0/proxy.mp4")
    with pytest.raises(CorruptObject, match=r"media/demo_red0/proxy\.mp4: .*run `sayso verify`"):
        measure(YouCook2([Pair("red0", 0, 5, "red")]), embedder, own_root)
    own_root.storage.remove("media/demo_red0/proxy.mp4")
    with pytest.raises(CorruptObject, match=r"media/demo_red0/proxy\.mp4: .*run `sayso verify`"):
        measure(YouCook2([Pair("red0", 0, 5, "red")]), embedder, own_root)


# HMDB-51


def some_videos(
    actions: list[str], seed: int
) -> tuple[list[Labelled], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Twelve videos an action and three noisy windows of each; eight of them to train on, in the first split."""
    random = np.random.default_rng(seed)
    videos = [
        Labelled(f"{action}{n}", action, ("1" if n < 8 else "2", "0", "1")) for action in actions for n in range(12)
    ]
    centres = random.normal(size=(len(actions), 1, 1, 6)).repeat(12, axis=1)
    noise = 6 / len(actions) * random.normal(size=(len(actions), 12, 3, 6))
    return videos, (centres + noise).reshape(-1, 3, 6).astype(np.float32)


@pytest.mark.parametrize("actions", [["run", "jump", "wave", "clap"], ["run", "jump"]])
def test_windows_are_training_rows_and_their_decision_values_are_summed(actions: list[str]) -> None:
    videos, features = some_videos(actions, seed=4)
    rows, labels, right = [], [], 0
    for video, windows in zip(videos, features, strict=True):
        for window in windows:
            if video.splits[0] == "1":
                rows.append(window)
                labels.append(video.action)
    one_against_rest = {
        action: LinearSVC(C=100.0, random_state=0, max_iter=100_000).fit(rows, [label == action for label in labels])
        for action in actions
    }
    tested = [(video, windows) for video, windows in zip(videos, features, strict=True) if video.splits[0] == "2"]
    for video, windows in tested:
        values = {action: svm.decision_function(windows).sum() for action, svm in one_against_rest.items()}
        right += max(values, key=lambda action: values[action]) == video.action
    found = classify(videos, features, 0)
    assert 100 / len(actions) < found.accuracy < 100, "nothing would be shown by a set this easy or this hard"
    assert found.accuracy == 100 * right / len(tested)
    assert found.converged
    assert (found.train, found.test) == (8 * len(actions), 4 * len(actions))


class Blind(Embedder):
    """A model that must not be asked."""

    def windows(self, windows: object, output: str = "embedding") -> torch.Tensor:
        raise AssertionError


def test_a_split_that_cannot_be_tested_is_refused(embedder: Embedder, small_root: Root) -> None:
    videos, features = some_videos(["run", "jump"], seed=0)
    with pytest.raises(InputError, match="split2: 0 training videos of 0 actions and 0 test videos are there"):
        classify(videos, features, 1)
    with pytest.raises(InputError, match=r"split3: .* and 0 test videos"):
        classify(videos, features, 2)
    few = HMDB51([Labelled(name, name, ("1", "1", "2")) for name in ("red0", "blue0")])
    with pytest.raises(InputError, match=r"split1: .* and 0 test videos"):
        measure(few, Blind(embedder.trained, "cpu"), small_root)


def test_colours_are_told_apart_by_a_tower_that_was_never_trained(
    embedder: Embedder, small_root: Root, tmp_path: Path
) -> None:
    rows = [
        f"{colour}{n}.avi,{colour}_test,{1 + n % 2},{1 + (n + 1) % 2},{n % 3}" for colour in COLOURS for n in range(5)
    ]
    path = written(tmp_path / "hmdb51.csv", "video_id,label,split1,split2,split3", *rows)
    found = measure(HMDB51.read(path), embedder, small_root, 2)
    assert found.metrics == {"accuracy": 100}
    assert found.chance == {"accuracy": 25}
    assert found.parts["split1"] == {"accuracy": 100, "train": 8, "test": 8}
    assert found.parts["split3"] == {"accuracy": 100, "train": 4, "test": 4}
    assert (found.used, found.of) == (16, 20)
    assert found.missing == {f"{colour}4": "not in the root" for colour in COLOURS}


# CrossTask


def release(folder: Path, stretches: dict[str, list[str]], tasks: list[str] | None = None) -> Path:
    """A folder as CrossTask is released, with two tasks, of which each video is one of `101_ID` and `202_ID`."""
    blocks = tasks or [
        "101\nShow Colours\nhttp://x\n2\nthe red one,the blue one\n",
        "202\nMove\nhttp://y\n3\nnow,moves,one\n",
    ]
    written(folder / "tasks_primary.txt", *blocks)
    written(
        folder / "videos_val.csv",
        *(f"{name.replace('_', ',', 1)},http://v" for name in stretches),
        "999,other,http://v",
    )
    for name, lines in stretches.items():
        written(folder / "annotations" / f"{name}.csv", *lines)
    return folder


def test_the_release_reads(tmp_path: Path) -> None:
    folder = release(tmp_path, {"101_a": ["1,0.5,2.2", "2,5,6"], "202_b_c": ["3,0,1"]})
    written(tmp_path / "videos.csv", "101,a,http://v", "101,not-annotated,http://v")
    found = CrossTask.read(folder)
    assert found.tasks["101"].steps == ("the red one", "the blue one")
    assert found.annotated == [
        Annotated("a", "101", ((0, 0.5, 2.2), (1, 5.0, 6.0))),
        Annotated("b_c", "202", ((2, 0, 1),)),
    ]
    assert CrossTask.read(tmp_path / "videos.csv").video_ids() == ["a"]
    written(tmp_path / "videos.csv", *["101,a,http://v"] * 2)
    assert CrossTask.read(tmp_path / "videos.csv").video_ids() == ["a"], "twice would count twice"
    with pytest.raises(InputError, match="nowhere: not there; give the folder crosstask_release"):
        CrossTask.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("stretches", "tasks", "message"),
    [
        (["3,0,1"], None, "101_a.csv, line 1: step 3, but Show Colours has 2"),
        (["1,0"], None, "101_a.csv, line 1: step,start,end is needed, not '1,0'"),
        (["1,5,2"], None, "101_a.csv, line 1: start 5 and end 2 are not a stretch"),
        (["1,0,1"], ["101\nShow\nhttp://x\n3\na,b"], "line 1: task 101 says 3 steps and names 2"),
        (["1,0,1"], ["101\nShow\nhttp://x\n", "202\nB\nhttp://y\n1\na"], "line 1: a task has five lines"),
        (["1,0,1"], ["202\nB\nhttp://y\n1\na"], "no video of a task of tasks_primary.txt"),
        (["1,0,1"], [""], "no tasks in it"),
    ],
)
def test_what_is_wrong_in_a_release_is_named(
    stretches: list[str], tasks: list[str] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        CrossTask.read(release(tmp_path, {"101_a": stretches}, tasks))


def test_recall_counts_steps_that_are_present_and_hit() -> None:
    video = Annotated("a", "101", ((0, 0.5, 2.2), (1, 5.0, 6.0), (0, 8, 9), (2, 11.0, 12.0)))
    present = video.present(10, 4)
    assert present[:, 0].nonzero()[0].tolist() == [0, 1, 2, 8]  # widened to whole seconds; two stretches, one step
    assert present[:, 1].nonzero()[0].tolist() == [5]
    assert not present[:, 2:].any()  # behind the end, and never done
    tally = Tally()
    tally.add(present, [8, 6, 7, 9])
    assert (tally.hits, tally.steps, tally.videos) == (1, 2, 1)
    tally.add(present, None)
    assert (tally.hits, tally.steps, tally.videos) == (1, 4, 2)


def test_a_window_lies_around_the_middle_of_its_second() -> None:
    assert bin_starts(4.3, 0.8) == pytest.approx([0.1, 1.1, 2.1, 3.1])
    assert bin_starts(4.3, 3.2) == pytest.approx([0, 0, 0.9, 1.1])
    assert bin_starts(0.4, 3.2) == [0]


class Oracle(Embedder):
    """A model that sees colours as they are: red and blue are the directions of the first task's steps."""

    def windows(self, windows: object, output: str = "embedding") -> torch.Tensor:
        assert not isinstance(windows, torch.Tensor)
        means = torch.stack([window.float().mean(dim=(0, 1, 2)) for window in windows])  # type: ignore[attr-defined]
        return means[:, [0, 2]] / 50

    def texts(self, texts: object) -> torch.Tensor:
        return {2: torch.eye(2), 3: torch.tensor([[1.0, 1], [0, 0], [-1, -1]])}[len(list(texts))]  # type: ignore[call-overload]


def test_steps_are_found_in_their_order(embedder: Embedder, small_root: Root, own_root: Root, tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    film(path, [COLOURS["blue"], COLOURS["red"], COLOURS["blue"]], seconds=9)
    own_root.storage.put_bytes(path.read_bytes(), "media/demo_red0/proxy.mp4")
    # Blue is shown in 0-3 too, but red, which comes before it, only in 3-6. The bins are eight: so long the row says.
    lines = {"101_red0": ["1,3,6", "2,0,3", "2,6,8"], "101_white1": ["1,7.5,8"], "202_gone": ["1,0,1"]}
    protocol = CrossTask.read(release(tmp_path / "release", lines))
    found = measure(protocol, Oracle(embedder.trained, "cpu"), own_root)
    # In the white one all bins are alike, so the steps come first, where they are not.
    assert found.parts == {"Show Colours": {"recall": pytest.approx(200 / 3), "hits": 2, "steps": 3, "videos": 2}}
    assert found.metrics == {"recall": pytest.approx(200 / 3)}
    assert found.chance == {"recall": pytest.approx(100 / 3)}  # seconds 2 and 6: the blue one is hit
    assert (found.used, found.of, found.windows) == (2, 3, 1)
    assert found.missing == {"gone": "not in the root"}
    assert found.notes == ["tasks without a video that is there, not in the mean: Move"]
    with pytest.raises(ConfigError, match="crosstask looks at one window a second"):
        measure(protocol, embedder, own_root, 4)


def test_tasks_weigh_the_same_and_videos_shorter_than_their_steps_are_missed(
    embedder: Embedder, small_root: Root, tmp_path: Path
) -> None:
    many = ",".join(f"step {n}" for n in range(9))
    tasks = [f"101\nLong\nhttp://x\n9\n{many}\n", "202\nShort\nhttp://y\n1\nnow"]
    lines = {"101_red0": ["1,0,8", "2,0,8", "3,0,8"], "202_red1": ["1,0,8"]}
    found = measure(CrossTask.read(release(tmp_path, lines, tasks)), embedder, small_root)
    assert found.parts["Long"] == {"recall": 0, "hits": 0, "steps": 3, "videos": 1}
    assert found.metrics == {"recall": 50}
    assert found.notes == ["red0: fewer seconds than steps, all counted as missed"]


def test_a_task_a_second_of_video_has_one_way(embedder: Embedder, small_root: Root, tmp_path: Path) -> None:
    steps = ",".join(f"step {n}" for n in range(8))
    lines = {"101_red0": [f"{n + 1},{n},{n + 1}" for n in range(8)]}
    found = measure(
        CrossTask.read(release(tmp_path, lines, [f"101\nLong\nhttp://x\n8\n{steps}\n"])), embedder, small_root
    )
    assert found.metrics == found.chance == {"recall": 100}


def test_no_step_inside_the_videos_is_an_error(embedder: Embedder, small_root: Root, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no step lies inside the videos that are there"):
        measure(CrossTask.read(release(tmp_path, {"101_red0": ["1,80,90"]})), embedder, small_root)


def test_blocks_of_tasks_end_with_or_without_an_empty_line(tmp_path: Path) -> None:
    path = written(tmp_path / "tasks.txt", "1\nA\nu\n1\nx", "2\nB\nu\n2\ny,z", "", "3\nC\nu\n1\nw")
    assert [task.steps for task in read_tasks(path).values()] == [("x",), ("y", "z"), ("w",)]
