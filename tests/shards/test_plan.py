"""Plans: the same from the same rows, splits by video, growth that leaves the old alone."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from sayso.errors import ConfigError
from sayso.root import Root
from sayso.rows import Media, Narration, Plan, Video
from shards.plan import ShardSettings, make_plan, plan_export, propose, split_of

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

SETTINGS = ShardSettings(samples_per_shard=25, val=0.2, test=0.2)
IDS = [f"site:v{number}" for number in range(40)]


def rows(lab: Lab, ids: list[str]) -> tuple[list[Narration], list[Media], list[Video]]:
    return (
        [lab.narration(v, t, t + 1.5) for v in ids for t in (0.5, 4.0, 9.0, 30.0)],
        [lab.media_row(v, b"proxy" * 1000, 60) for v in ids],
        [Video(video_id=v, url=v, task_id="tyre") for v in ids],
    )


def test_a_plan_does_not_depend_on_the_order_of_its_rows(lab: Lab) -> None:
    narrations, media, videos = rows(lab, IDS)
    plans = make_plan(narrations, media, videos, SETTINGS)
    for shuffled in (narrations, media, videos):
        random.Random(7).shuffle(shuffled)
    assert make_plan(narrations, media, videos, SETTINGS) == plans


def test_every_narration_is_the_anchor_of_one_sample_and_shards_keep_to_their_size(lab: Lab) -> None:
    narrations, media, videos = rows(lab, IDS)
    plans = make_plan(narrations, media, videos, SETTINGS)
    anchors = [sample.candidates[0].narration_id for plan in plans for sample in plan.samples]
    assert sorted(anchors) == sorted(narration.narration_id for narration in narrations)
    assert all(0 < len(plan.samples) <= 25 for plan in plans)
    assert len({sample.key for plan in plans for sample in plan.samples}) == len(narrations)
    assert not any("." in sample.key for plan in plans for sample in plan.samples)
    assert {sample.task_id for plan in plans for sample in plan.samples} == {"tyre"}


def test_a_shard_mixes_its_videos(lab: Lab) -> None:
    plan = max(make_plan(*rows(lab, IDS), SETTINGS), key=lambda plan: len(plan.samples))
    videos = [sample.video_id for sample in plan.samples]
    assert len(set(videos)) == 6
    assert sum(a == b for a, b in itertools.pairwise(videos)) < len(videos) / 2


def test_splits_are_by_video_and_stay_when_videos_come(lab: Lab) -> None:
    def splits(ids: list[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for plan in make_plan(*rows(lab, ids), SETTINGS):
            for sample in plan.samples:
                found.setdefault(sample.video_id, set()).add(plan.split)
        return found

    few, many = splits(IDS[:15]), splits(IDS)
    assert all(len(each) == 1 for each in many.values())
    assert few.items() <= many.items()
    assert {split for each in many.values() for split in each} == {"train", "val", "test"}


def test_the_shares_of_the_splits_are_those_asked_for() -> None:
    count = 5000
    found = [split_of(f"site:{number}", SETTINGS) for number in range(count)]
    assert found.count("val") / count == pytest.approx(0.2, abs=0.02)
    assert found.count("test") / count == pytest.approx(0.2, abs=0.02)


def test_a_size_limit_makes_more_shards(lab: Lab) -> None:
    narrations, media, videos = rows(lab, IDS[:10])
    small = SETTINGS.model_copy(update={"shard_bytes": 8000})
    assert len(make_plan(narrations, media, videos, small)) > len(make_plan(narrations, media, videos, SETTINGS))


def test_a_video_that_is_too_big_for_a_shard_is_spread_over_several(lab: Lab) -> None:
    narrations = [lab.narration("site:long", float(t), t + 1.0) for t in range(60)]
    plans = make_plan(narrations, [lab.media_row("site:long", b"x" * 1000, 60)], [], SETTINGS)
    assert [len(plan.samples) for plan in plans] == [25, 25, 10]


def test_growth_makes_new_shards_and_planning_twice_makes_none(lab: Lab, root: Root) -> None:
    lab.add_videos(root, IDS[:6], b"proxy", 12)
    first = plan_export(root, SETTINGS)
    assert first.samples == 36
    assert first.seconds == pytest.approx(36 * 5)
    planned = root.table(Plan).version()
    assert plan_export(root, SETTINGS).plans == []
    assert root.table(Plan).version() == planned

    old = {plan.shard: plan for plan in root.table(Plan).rows()}
    lab.add_videos(root, IDS[6:12], b"proxy", 12)
    second = plan_export(root, SETTINGS)
    assert second.samples == 36
    now = {plan.shard: plan for plan in root.table(Plan).rows()}
    assert old.items() < now.items()
    assert len(now) == len(old) + len(second.plans)


def test_what_cannot_be_cut_is_left_out_with_a_reason(lab: Lab, root: Root) -> None:
    lab.append(root, [lab.media_row("site:a", b"x", 10), lab.media_row("site:sound", b"x", 10, width=0)])
    said = [
        lab.narration("site:a", 1, 2),
        lab.narration("site:a", 3, 4, kept=False),
        lab.narration("site:a", 11, 12),
        lab.narration("site:sound", 1, 2),
        lab.narration("site:gone", 1, 2),
    ]
    lab.append(root, said)
    proposal = propose(root, SETTINGS)
    assert proposal.dropped == {"outside_video": 1, "no_picture": 1, "no_media": 1}
    assert proposal.samples == 1
    assert root.table(Plan).version() == -1


def test_an_export_keeps_the_settings_that_it_was_begun_with(lab: Lab, root: Root) -> None:
    lab.add_videos(root, IDS[:2], b"proxy", 12)
    plan_export(root, SETTINGS)
    other = SETTINGS.model_copy(update={"min_window": 8.0})
    with pytest.raises(ConfigError, match=r"min_window is 5\.0, not 8\.0.*another export name"):
        plan_export(root, other)
    assert plan_export(root, other.model_copy(update={"export": "longer"})).samples == 12


def test_a_root_without_narrations_has_nothing_to_plan(root: Root) -> None:
    assert plan_export(root, SETTINGS).plans == []
    assert root.storage.list("shards") == []
