"""A plan is a function of its settings, and what it says is true hangs together."""

import csv
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from demo.objects import SHADES
from demo.plan import plan_videos
from demo.retrieval import retrieval_pairs, write_protocol
from demo.settings import WorldSettings
from demo.truth import Said, VideoTruth
from demo.vocabulary import ACTORS, NARRATORS, TASKS


def test_the_same_settings_plan_the_same_world_and_another_seed_another() -> None:
    assert plan_videos(WorldSettings(seed=3)) == plan_videos(WorldSettings(seed=3))
    one, other = plan_videos(WorldSettings(seed=3)), plan_videos(WorldSettings(seed=4))
    assert not {truth.id for truth in one} & {truth.id for truth in other}
    assert [truth.said for truth in one] != [truth.said for truth in other]


def test_ids_look_like_those_of_big_sites_and_differ() -> None:
    ids = [truth.id for truth in plan_videos(WorldSettings(videos=100))]
    assert len(set(ids)) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}", name) for name in ids)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    noise=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    offset=st.floats(0, 5),
    shortest=st.floats(8, 40),
    spread=st.floats(3, 25),
)
def test_every_plan_is_consistent(seed: int, noise: float, offset: float, shortest: float, spread: float) -> None:
    chosen = WorldSettings(
        seed=seed, videos=4, noise=noise, offset=offset, min_duration=shortest, max_duration=shortest + spread
    )
    for truth in plan_videos(chosen):
        assert shortest - 0.03 <= truth.duration <= shortest + spread + 0.03
        _check_steps(truth)
        _check_speech(truth, offset)
        _check_sounds(truth)


def _check_steps(truth: VideoTruth) -> None:
    assert [seen.step for seen in truth.seen] == list(range(len(truth.seen)))
    usual = TASKS[truth.task]
    order = [usual.index(f"{seen.action} {seen.object}") for seen in truth.seen]
    assert len(set(order)) == len(order), "a step is shown once"
    assert sum(a > b for a, b in pairwise(order)) <= 1, "at most one pair is swapped"
    for before, after in pairwise(truth.seen):
        assert before.end < after.start
    for seen in truth.seen:
        assert 0 <= seen.start < seen.end <= truth.duration
        assert seen.end - seen.start >= 2.5
        assert seen.actor in ACTORS
        assert seen.colour in SHADES[seen.object]
        assert seen.description == f"{seen.action} the {seen.object}"


def _check_speech(truth: VideoTruth, offset: float) -> None:
    assert truth.narrator in NARRATORS
    for before, after in pairwise(truth.said):
        assert before.end < after.start
    for said in truth.said:
        assert 0 <= said.start < said.end <= truth.duration
        assert " ".join(word.text for word in said.words) == said.text
        if said.step is not None:
            seen = truth.seen[said.step]
            assert seen.action in said.text.lower()
            assert seen.object in said.text
            assert seen.start - offset - 0.01 <= said.start <= seen.end + offset + 0.01


def _check_sounds(truth: VideoTruth) -> None:
    for sound, seen in zip(truth.sounds, truth.seen, strict=True):
        assert sound.action == seen.action
        assert seen.start <= sound.start < sound.end <= seen.end


def _share_unseen(truths: list[VideoTruth]) -> float:
    said: list[Said] = [one for truth in truths for one in truth.said]
    return sum(one.step is None for one in said) / len(said)


@pytest.mark.parametrize("noise", [0.0, 0.25, 0.5, 0.9])
def test_the_share_of_sentences_about_nothing_seen_is_as_set(noise: float) -> None:
    assert _share_unseen(plan_videos(WorldSettings(noise=noise))) == pytest.approx(noise, abs=0.04)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_last_quarter_shows_nothing_new(seed: int) -> None:
    truths = plan_videos(WorldSettings(seed=seed))
    trained = {seen.description for truth in truths[:18] for seen in truth.seen}
    held_out = {seen.description for truth in truths[18:] for seen in truth.seen}
    assert held_out <= trained
    assert len(held_out) >= 25
    assert len({truth.task for truth in truths[18:]}) >= 4


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"noise": 0.95}, "noise"), ({"videos": 0}, "videos"), ({"min_duration": 50, "max_duration": 40}, "min_duration")],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        WorldSettings.model_validate(wrong)


def test_every_text_of_the_retrieval_protocol_has_one_answer(tmp_path: Path) -> None:
    truths = plan_videos(WorldSettings())[18:]
    pairs = retrieval_pairs(truths, lambda truth: f"demo:{truth.id}")
    by_id = {f"demo:{truth.id}": truth for truth in truths}
    assert len({pair.text for pair in pairs}) == len(pairs)
    assert {pair.text for pair in pairs} == {seen.description for truth in truths for seen in truth.seen}
    for pair in pairs:
        shown = [(seen.start, seen.end) for seen in by_id[pair.video_id].seen if seen.description == pair.text]
        assert (pair.start, pair.end) in shown
    write_protocol(pairs, tmp_path / "retrieval.csv")
    with (tmp_path / "retrieval.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["video_id", "start", "end", "text"]
    assert [(row["video_id"], float(row["start"]), row["text"]) for row in rows] == [
        (pair.video_id, pair.start, pair.text) for pair in pairs
    ]
