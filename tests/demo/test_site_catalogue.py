import pytest

from demo.site.catalogue import EVERYTHING, Captions, Fault, catalogue, playlists
from demo.truth import VideoSummary, World


def world_of(count: int) -> World:
    videos = [
        VideoSummary(id=f"abcdefgh{index:03}", title=f"How to {index}", task=f"task {index % 3}", duration=30.0)
        for index in range(count)
    ]
    return World(seed=1, version=1, videos=videos)


def test_every_fault_is_there_once_and_nothing_else_is_lost() -> None:
    entries = catalogue(world_of(24))
    faults = [entry.fault for entry in entries]
    assert len(entries) == 26
    assert [faults.count(fault) for fault in (Fault.MISSING, Fault.DUPLICATE, Fault.TRUNCATED, Fault.FLAKY)] == [1] * 4
    assert {entry.source for entry in entries if entry.fault is not Fault.MISSING} == {
        video.id for video in world_of(24).videos
    }


def test_added_entries_have_ids_of_their_own_and_no_two_faults_meet_in_one_video() -> None:
    entries = catalogue(world_of(24))
    assert len({entry.id for entry in entries}) == 26
    assert len({entry.source for entry in entries if entry.fault is not Fault.NONE}) == 4


def test_the_order_in_which_the_world_lists_its_videos_changes_nothing() -> None:
    world = world_of(24)
    assert catalogue(world) == catalogue(world.model_copy(update={"videos": world.videos[::-1]}))


def test_some_videos_have_both_kinds_of_captions_some_one_some_none() -> None:
    kinds = [entry.captions for entry in catalogue(world_of(24)) if entry.fault in (Fault.NONE, Fault.FLAKY)]
    assert all(kinds.count(kind) >= 6 for kind in Captions)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_a_small_world_has_fewer_faults(count: int) -> None:
    entries = catalogue(world_of(count))
    assert len([entry for entry in entries if entry.fault is Fault.NONE]) == max(0, count - 2)


def test_playlists_hold_everything_and_each_task() -> None:
    entries = catalogue(world_of(24))
    lists = playlists(entries)
    assert lists[EVERYTHING] == entries
    assert set(lists) == {EVERYTHING, "task-0", "task-1", "task-2"}
    assert sum(len(of_task) for name, of_task in lists.items() if name != EVERYTHING) == len(entries)
