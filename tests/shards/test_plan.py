"""Plans: the same from the same rows, splits by video, growth that leaves the old alone."""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sayso.errors import ConfigError
from sayso.root import Root
from sayso.rows import Failure, Narration, Plan, Video
from sayso.sealed import opened_json
from shards.plan import SPLITS, left_out, plan_export, profile_key, propose, split_of, summarise
from shards.settings import ShardSettings

if TYPE_CHECKING:
    from tests.shards.conftest import Lab

SETTINGS = ShardSettings(samples_per_shard=25, val=0.2, test=0.2)
IDS = [f"site:v{number:02}" for number in range(40)]
TIMES = (0.5, 4.0, 9.0, 30.0)


def world(root: Root, lab: Lab, ids: Sequence[str], *, source: str = "") -> None:
    """Videos of a minute with four narrations each; `source` names the bytes that all of them are made of."""
    lab.append(root, [Video(video_id=v, url=v, task_id="tyre") for v in ids])
    lab.append(root, [lab.media_row(v, b"proxy" * 1000, 60, source=source) for v in ids])
    lab.append(root, [lab.narration(v, t, t + 1.5) for v in ids for t in TIMES])


def plans_of(root: Root, settings: ShardSettings) -> list[Plan]:
    """The shards that planning would add, train first."""
    proposed = [proposed.plan for proposed in propose(root, settings).shards]
    return sorted(proposed, key=lambda plan: (SPLITS.index(plan.split), plan.shard))


def planned_videos(root: Root) -> set[str]:
    return {sample.video_id for plan in root.table(Plan).rows() for sample in plan.samples}


def noted(root: Root) -> list[tuple[str, str, str]]:
    """What planning says of videos in table failures."""
    return sorted((row.id, row.kind, row.message) for row in root.table(Failure).rows(stage="plan"))


def test_a_plan_does_not_depend_on_the_order_of_its_rows(lab: Lab, tmp_path: Path) -> None:
    found = []
    for seed in range(4):
        root, shuffled = Root(str(tmp_path / str(seed))).create(), random.Random(seed).sample(IDS, len(IDS))
        world(root, lab, shuffled)
        found.append(plans_of(root, SETTINGS))
    assert all(plans == found[0] for plans in found)


def test_a_plan_is_what_it_always_was(lab: Lab, root: Root) -> None:
    """Shards are made again from plans, and growth goes on from them: a new version may not plan the same otherwise."""
    world(root, lab, IDS)
    found = [plan.model_copy(update={"version": 0}) for plan in plans_of(root, SETTINGS)]
    newer_of_sample: Any = {
        "images": True,
        "features": True,
        "windows": True,
        "candidates": {"__all__": {"confidence"}},
    }
    newer: Any = {"kind": True, "samples": {"__all__": newer_of_sample}}
    plans = b"".join(plan.model_dump_json(exclude=newer).encode() for plan in found)
    assert hashlib.sha256(plans).hexdigest() == "d37042fb254fcd4b2cc40fafc1001719a9f17b55d52a4521135fe3039cc64982"


def test_every_narration_is_the_anchor_of_one_sample_and_shards_keep_to_their_size(lab: Lab, root: Root) -> None:
    world(root, lab, IDS)
    plans = plans_of(root, SETTINGS)
    anchors = [sample.candidates[0].narration_id for plan in plans for sample in plan.samples]
    assert sorted(anchors) == sorted(row.narration_id for row in root.table(Narration).rows())
    assert all(0 < len(plan.samples) <= 25 for plan in plans)
    assert len({sample.key for plan in plans for sample in plan.samples}) == len(anchors)
    assert not any("." in sample.key for plan in plans for sample in plan.samples)
    assert {sample.task_id for plan in plans for sample in plan.samples} == {"tyre"}


def test_a_shard_mixes_its_videos(lab: Lab, root: Root) -> None:
    world(root, lab, IDS)
    plan = max(plans_of(root, SETTINGS), key=lambda plan: len(plan.samples))
    videos = [sample.video_id for sample in plan.samples]
    assert len(set(videos)) == 6
    assert sum(a == b for a, b in itertools.pairwise(videos)) < len(videos) / 2


def test_splits_are_by_video_and_stay_when_videos_come(lab: Lab, root: Root) -> None:
    def splits() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for plan in plans_of(root, SETTINGS):
            for sample in plan.samples:
                found.setdefault(sample.video_id, set()).add(plan.split)
        return found

    world(root, lab, IDS[:15])
    few = splits()
    world(root, lab, IDS[15:])
    many = splits()
    assert all(len(each) == 1 for each in many.values())
    assert few.items() <= many.items()
    assert {split for each in many.values() for split in each} == {"train", "val", "test"}


def test_the_shares_of_the_splits_are_those_asked_for() -> None:
    count = 5000
    found = [split_of(f"site:{number}", SETTINGS) for number in range(count)]
    assert found.count("val") / count == pytest.approx(0.2, abs=0.02)
    assert found.count("test") / count == pytest.approx(0.2, abs=0.02)


def test_a_size_limit_makes_more_shards(lab: Lab, root: Root) -> None:
    world(root, lab, IDS[:10])
    small = SETTINGS.model_copy(update={"shard_bytes": 8000})
    assert len(plans_of(root, small)) > len(plans_of(root, SETTINGS))


def test_a_video_that_is_too_big_for_a_shard_is_spread_over_several(lab: Lab, root: Root) -> None:
    lab.append(root, [lab.narration("site:long", float(t), t + 1.0) for t in range(60)])
    lab.append(root, [lab.media_row("site:long", b"x" * 1000, 60)])
    assert [len(plan.samples) for plan in plans_of(root, SETTINGS)] == [25, 25, 10]


def test_growth_makes_new_shards_and_planning_twice_makes_none(lab: Lab, root: Root) -> None:
    lab.add_videos(root, IDS[:6], b"proxy", 12)
    first = plan_export(root, SETTINGS)
    assert first.total.samples == 36
    assert first.total.seconds == pytest.approx(36 * 5)
    planned = root.table(Plan).version()
    assert plan_export(root, SETTINGS).total.shards == 0
    assert root.table(Plan).version() == planned

    old = {plan.shard: plan for plan in root.table(Plan).rows()}
    lab.add_videos(root, IDS[6:12], b"proxy", 12)
    second = plan_export(root, SETTINGS)
    assert second.total.samples == 36
    now = {plan.shard: plan for plan in root.table(Plan).rows()}
    assert old.items() < now.items()
    assert len(now) == len(old) + second.total.shards


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
    proposed = summarise(propose(root, SETTINGS))
    assert proposed.dropped == {"outside_video": 1, "no_picture": 1, "no_media": 1}
    assert proposed.total.samples == 1
    assert root.table(Plan).version() == -1


def test_a_narration_that_comes_later_stands_among_those_that_are_planned(lab: Lab, root: Root) -> None:
    world(root, lab, IDS[:3])
    plan_export(root, SETTINGS)
    lab.append(root, [lab.narration(IDS[0], 5.0, 6.0, "late")])
    (plan,) = plans_of(root, SETTINGS)
    (sample,) = plan.samples
    assert sample.candidates[0].text == "late"
    assert [candidate.start for candidate in sample.candidates] == [5.0, 4.0, 0.5, 9.0, 30.0]


def test_of_videos_of_the_same_bytes_the_smallest_id_is_planned(lab: Lab, tmp_path: Path) -> None:
    found = []
    for name, order in (("a", IDS[:4]), ("b", IDS[3::-1])):
        root = Root(str(tmp_path / name)).create()
        for video in order:
            world(root, lab, [video], source="the same" if video != IDS[1] else "")
        proposal = plan_export(root, SETTINGS)
        assert proposal.dropped == {"duplicate": 2 * len(TIMES)}
        assert planned_videos(root) == {IDS[0], IDS[1]}
        assert noted(root) == [(video, "skip", f"same bytes as {IDS[0]}") for video in IDS[2:4]]
        found.append(sorted(repr(plan.samples) for plan in root.table(Plan).rows()))
    assert found[0] == found[1]


def test_a_copy_with_a_smaller_id_that_comes_later_is_left_out(lab: Lab, root: Root) -> None:
    world(root, lab, IDS[2:4], source="the same")
    plan_export(root, SETTINGS)
    before = list(root.table(Plan).rows())
    world(root, lab, IDS[:2], source="the same")
    proposal = plan_export(root, SETTINGS)
    assert proposal.total.shards == 0
    assert proposal.dropped == {"duplicate": 3 * len(TIMES)}
    assert list(root.table(Plan).rows()) == before
    assert planned_videos(root) == {IDS[2]}
    assert noted(root) == [(video, "skip", f"same bytes as {IDS[2]}") for video in (IDS[0], IDS[1], IDS[3])]


def test_a_copy_is_noted_once_and_anew_when_it_was_taken_back(lab: Lab, root: Root) -> None:
    world(root, lab, IDS[:2], source="the same")
    plan_export(root, SETTINGS)
    plan_export(root, SETTINGS)
    plan_export(root, SETTINGS.model_copy(update={"export": "others"}))
    assert len(noted(root)) == 1
    assert [failure.reason for failure in left_out(root).values()] == ["duplicate"]
    lab.append(root, [Failure(stage="plan", id=IDS[1], kind="again", reason="asked", message="", attempts=0)])
    assert left_out(root) == {}
    plan_export(root, SETTINGS)
    assert list(left_out(root)) == [IDS[1]]


def test_a_video_that_nothing_is_said_in_takes_no_place_from_its_copy(lab: Lab, root: Root) -> None:
    lab.append(root, [lab.media_row(video, b"x", 60, source="the same") for video in IDS[:2]])
    lab.append(root, [lab.narration(IDS[0], 1, 2, kept=False), lab.narration(IDS[1], 1, 2)])
    plan_export(root, SETTINGS)
    assert planned_videos(root) == {IDS[1]}
    assert noted(root) == []


def test_copies_that_are_planned_already_stay_and_grow(lab: Lab, root: Root) -> None:
    """As in a root that was planned before copies were left out here."""
    world(root, lab, IDS[:2])
    plan_export(root, SETTINGS)
    media = [lab.media_row(video, b"proxy" * 1000, 60, source="the same") for video in IDS[:3]]
    shutil.rmtree(f"{root.url}/tables/media")
    lab.append(root, media)
    lab.append(root, [lab.narration(video, 20.0, 21.0) for video in IDS[:3]])
    assert plan_export(root, SETTINGS).total.samples == 2
    assert planned_videos(root) == set(IDS[:2])
    assert noted(root) == [(IDS[2], "skip", f"same bytes as {IDS[0]}")]


def test_settings_bind_only_once_something_is_planned(lab: Lab, root: Root) -> None:
    """As after a planning that was killed between keeping its settings and its plans."""
    world(root, lab, IDS[:2])
    root.storage.put_bytes(b'{"export": "clips", "min_window": 9.0}\n', profile_key("clips"))
    assert plan_export(root, SETTINGS).total.samples == 2 * len(TIMES)
    assert opened_json(root.storage.read(profile_key("clips")), "settings") == SETTINGS.model_dump()


def test_copies_are_noted_by_the_next_planning_where_one_was_killed_before_it_did(lab: Lab, root: Root) -> None:
    world(root, lab, IDS[:2], source="the same")
    lab.append(root, plans_of(root, SETTINGS))
    assert noted(root) == []
    assert plan_export(root, SETTINGS).total.shards == 0
    assert noted(root) == [(IDS[1], "skip", f"same bytes as {IDS[0]}")]


def test_an_export_keeps_the_settings_that_it_was_begun_with(lab: Lab, root: Root) -> None:
    lab.add_videos(root, IDS[:2], b"proxy", 12)
    plan_export(root, SETTINGS)
    other = SETTINGS.model_copy(update={"min_window": 8.0})
    with pytest.raises(ConfigError, match=r"min_window is 5\.0, not 8\.0.*another export name"):
        plan_export(root, other)
    assert plan_export(root, other.model_copy(update={"export": "longer"})).total.samples == 12


def test_long_windows_hold_all_that_is_said_in_them(lab: Lab, root: Root) -> None:
    world(root, lab, IDS[:1])
    settings = SETTINGS.model_copy(update={"windows": "context", "context_seconds": 20, "context_stride": 10})
    (plan,) = plans_of(root, settings)
    found = {(sample.start, sample.end): [said.start for said in sample.candidates] for sample in plan.samples}
    assert found == {(0, 20): [0.5, 4, 9], (20, 40): [30], (30, 50): [30]}, "nothing is said in [10, 30) and [40, 60)"
    assert {sample.video_id for sample in plan.samples} == {IDS[0]}


def test_long_windows_stay_as_they_are_when_more_is_said_in_them(lab: Lab, root: Root) -> None:
    world(root, lab, IDS[:1])
    settings = SETTINGS.model_copy(update={"windows": "context"})
    plan_export(root, settings)
    lab.append(root, [lab.narration(IDS[0], 12, 13)])
    assert plans_of(root, settings) == []
    world(root, lab, IDS[1:2])
    assert {sample.video_id for plan in plans_of(root, settings) for sample in plan.samples} == {IDS[1]}


def test_candidates_have_the_scores_of_their_narrations(lab: Lab, root: Root) -> None:
    lab.append(root, [lab.media_row(IDS[0], b"proxy", 60)])
    said = [lab.narration(IDS[0], t, t + 1).model_copy(update={"confidence": t / 10}) for t in (1.0, 2.0, 5.0)]
    lab.append(root, said)
    (plan,) = plans_of(root, SETTINGS)
    assert {c.start: c.confidence for s in plan.samples for c in s.candidates} == {1: 0.1, 2: 0.2, 5: 0.5}


def test_a_root_without_narrations_has_nothing_to_plan(root: Root) -> None:
    assert plan_export(root, SETTINGS).total.shards == 0
    assert root.storage.list("shards") == []
