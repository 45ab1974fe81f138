import json
import shutil
from pathlib import Path

import pytest
import torch

from sayso.errors import ConfigError, CorruptObject, InputError, ModelNotFound, WorkFailed
from sayso.root import Root
from sayso.storage import Storage
from train.evaluate.clips import window_starts
from train.evaluate.metrics import chance, ranks, retrieval_metrics
from train.evaluate.pairs import Pair, read_pairs
from train.evaluate.retrieval import evaluate_retrieval, first_of_each_text
from train.launch import TrainResult


def csv_of(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rank_counts_what_scores_higher_and_half_of_what_ties() -> None:
    scores = torch.tensor(
        [
            [0.9, 0.1, 0.2, 0.3],  # best: 1
            [0.9, 0.5, 0.5, 0.1],  # one higher, one tie: 2.5
            [0.4, 0.4, 0.4, 0.4],  # three ties: 2.5
            [3.0, 2.0, 1.0, 0.0],  # worst: 4
        ]
    )
    assert ranks(scores).tolist() == [1, 2.5, 2.5, 4]
    found = retrieval_metrics(scores)
    assert (found.r1, found.r5, found.r10, found.median_rank) == (25, 100, 100, 2.5)


def test_ties_may_be_counted_as_won() -> None:
    scores = torch.tensor([[0.9, 0.9, 0.1], [0.2, 0.5, 0.9], [0.3, 0.3, 0.3]])
    assert ranks(scores, ties="won").tolist() == [1, 2, 1]
    assert retrieval_metrics(scores, ties="won").r1 == pytest.approx(200 / 3)
    assert retrieval_metrics(torch.zeros(30, 30), ties="won").r1 == 100


def test_ranks_agree_with_sorting_where_nothing_ties() -> None:
    scores = torch.randn(50, 50)
    expected = [sorted(row, reverse=True).index(row[i]) + 1 for i, row in enumerate(scores.tolist())]
    assert ranks(scores).tolist() == expected
    assert retrieval_metrics(scores).r5 == pytest.approx(2 * sum(rank <= 5 for rank in expected))


def test_a_model_that_cannot_tell_clips_apart_gets_no_more_than_chance() -> None:
    same = retrieval_metrics(torch.zeros(30, 30))
    assert (same.r1, same.r10, same.median_rank) == (0, 0, chance(30).median_rank)


def test_numbers_that_are_none_are_no_result() -> None:
    with pytest.raises(WorkFailed, match="diverged"):
        retrieval_metrics(torch.full((3, 3), torch.nan))


def test_chance() -> None:
    assert chance(25).model_dump() == {"r1": 4, "r5": 20, "r10": 40, "median_rank": 13}
    assert chance(4).r10 == 100


def test_windows_are_spread_evenly_and_stay_inside() -> None:
    assert window_starts(10, 20, windows=4, seconds=4) == [10, 12, 14, 16]
    assert window_starts(10, 12, windows=3, seconds=4) == [10, 10, 10]
    assert window_starts(10, 20, windows=1, seconds=4) == [10]


def test_columns_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "pairs.csv", 'end,start,task,text,video_id\n60,47.5,226,"cut, then stir",abc\n')
    assert read_pairs(path) == [Pair("abc", 47.5, 60.0, "cut, then stir")]


def test_the_published_file_reads(published: Path) -> None:
    pairs = read_pairs(published / "youcook2_val.csv")
    assert len(pairs) > 3000
    assert pairs[0] == Pair("xHr8X2Wpmno", 47.0, 60.0, "pick the ends off the verdalago")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,start,text\na,1,b\n", "no column end; the columns video_id, start, end, text are needed"),
        ("video_id,start,end,text\na,0,1,b\na,x,2,b\n", r"line 3: start 'x' and end '2' must be seconds"),
        ("video_id,start,end,text\na,5,2,b\n", r"line 2: start 5\.0 and end 2\.0 are not a stretch"),
        ("video_id,start,end,text\na,1,2,\n", "line 2: no text"),
        ("video_id,start,end,text\na,1\n", "line 2: no end"),
        ("video_id,start,end,text\n", "no rows in it"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_pairs(csv_of(tmp_path / "pairs.csv", text))


def test_one_clip_a_text_the_first(tmp_path: Path) -> None:
    pairs = [Pair("b", 0, 1, "stir"), Pair("a", 5, 6, "stir"), Pair("a", 2, 3, "cut")]
    found, rows = first_of_each_text(pairs, torch.arange(3)[:, None])
    assert found == [pairs[2], pairs[1]]
    assert rows.flatten().tolist() == [2, 1]


def test_retrieval_over_the_videos_of_a_csv_that_are_there(
    straight: TrainResult, small_root: Root, tmp_path: Path
) -> None:
    rows = ["video_id,start,end,text"]
    rows += [f"{name}0,1,6,now the {name} one moves" for name in ("red", "green", "blue", "white")]
    rows += ["elsewhere,0,5,now the pink one moves", "elsewhere,5,9,look how pink it is"]
    pairs = csv_of(tmp_path / "pairs.csv", "\n".join(rows))
    calls: list[tuple[int, int]] = []
    found = evaluate_retrieval(
        Path(straight.folder), small_root.url, pairs=pairs, windows=2, progress=lambda *done: calls.append(done)
    )
    assert found.candidates == 4
    assert found.videos.model_dump() == {"found": 4, "of": 5}
    assert found.chance.r1 == 25
    assert found.r1 > 50, "the model was trained to tell four colours apart"
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (found.of, found.missing) == (6, {"elsewhere": "not in the root"})
    assert found.to_json()["chance"]["median_rank"] == 2.5
    assert found.step == 60


def test_retrieval_over_a_split_of_an_export(straight: TrainResult, small_root: Root) -> None:
    found = evaluate_retrieval(Path(straight.model), small_root.url, export="clips", windows=1)
    colours = found.candidates // 3  # three texts of each colour that fell into the split
    assert found.candidates == 3 * colours
    assert 1 <= colours <= found.videos.found
    again = evaluate_retrieval(Path(straight.model), small_root.url, export="clips", windows=1)
    assert again == found


def test_a_model_is_evaluated_where_its_trainings_decoder_and_cache_are_not(
    straight: TrainResult, small_root: Root, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(straight.model, model)
    card = json.loads((model / "model.json").read_text())
    card["clips"] |= {"decoder": "torchcodec", "cache_folder": "/proc/nowhere"}
    (model / "model.json").write_text(json.dumps(card))
    place = f"memory://{tmp_path.name}"
    for key in Storage(small_root.url).list(""):
        Storage(place).put_bytes(small_root.storage.read(key), key)
    found = evaluate_retrieval(model, place, export="clips", windows=1)
    assert found.r5 == evaluate_retrieval(Path(straight.model), small_root.url, export="clips", windows=1).r5


def test_wrong_calls_say_what_to_do(straight: TrainResult, small_root: Root, tmp_path: Path) -> None:
    root = small_root.url
    with pytest.raises(ConfigError, match="give either a CSV of pairs or the name of an export"):
        evaluate_retrieval(Path(straight.folder), root)
    with pytest.raises(ModelNotFound, match=r"no model in .*: there is no such folder"):
        evaluate_retrieval(tmp_path / "nowhere", root, export="clips")
    with pytest.raises(ModelNotFound, match=r"model\.pt is missing"):
        evaluate_retrieval(tmp_path, root, export="clips")
    pairs = csv_of(tmp_path / "pairs.csv", "video_id,start,end,text\nelsewhere,0,5,stir\n")
    with pytest.raises(InputError, match="none of its 1 videos are in"):
        evaluate_retrieval(Path(straight.folder), root, pairs=pairs)


def test_a_broken_proxy_is_named(straight: TrainResult, tmp_path: Path, own_root: Root) -> None:
    own_root.storage.put_bytes(b"no video", "media/demo_red0/proxy.mp4")
    pairs = csv_of(tmp_path / "pairs.csv", "video_id,start,end,text\nred0,0,5,red\nblue0,0,5,blue\n")
    with pytest.raises(CorruptObject, match=r"media/demo_red0/proxy\.mp4: .*run `sayso verify`"):
        evaluate_retrieval(Path(straight.folder), own_root.url, pairs=pairs)


def test_no_figures_rest_on_an_export_with_a_broken_clip(straight: TrainResult, own_root: Root) -> None:
    (tar,) = Path(own_root.url).glob("shards/clips/test-*.tar")
    tar.write_bytes(tar.read_bytes().replace(b"moov", b"xxxx", 1))
    with pytest.raises(CorruptObject, match=r"shards/clips: 1 broken samples; run `sayso verify`"):
        evaluate_retrieval(Path(straight.model), own_root.url, export="clips", windows=1)
