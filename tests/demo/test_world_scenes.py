"""What is drawn is what the truth says is there."""

import numpy as np
import pytest

from demo.actions import ANIMATIONS
from demo.objects import PAINTERS, SHADES
from demo.plan import plan_videos
from demo.scenes import boxes, frame, masks
from demo.settings import WorldSettings
from demo.truth import HEIGHT, WIDTH, Seen, VideoTruth
from demo.vocabulary import ACTIONS, ACTORS, OBJECTS, STEPS, describe, split_step


def _video_of(step: str, video_id: str = "scene-test1", actor: str = "Ada") -> VideoTruth:
    action, thing = split_step(step)
    seen = Seen(start=1, end=7, step=0, action=action, object=thing, colour=next(iter(SHADES[thing])), actor=actor,
                description=describe(step))  # fmt: skip
    return VideoTruth(id=video_id, title="", task="", duration=8, narrator="Nora", uploader="", upload_date="20240101",
                      view_count=0, said=[], seen=[seen], sounds=[], boxes=[])  # fmt: skip


def test_a_dozen_actions_and_objects_are_all_drawn_and_all_used() -> None:
    assert set(ANIMATIONS) == set(ACTIONS) == {split_step(step)[0] for step in STEPS}
    assert set(PAINTERS) == set(OBJECTS) == {split_step(step)[1] for step in STEPS}
    assert len(ACTIONS) >= 12
    assert len(OBJECTS) >= 12


@pytest.mark.parametrize("step", STEPS)
def test_the_thing_is_large_and_in_the_picture_throughout_its_step(step: str) -> None:
    truth = _video_of(step)
    thing = truth.seen[0].object
    sizes = [masks(truth, time)[thing].sum() for time in np.arange(1.1, 6.9, 0.4)]
    assert np.median(sizes) > 0.02 * WIDTH * HEIGHT


@pytest.mark.parametrize("step", STEPS)
def test_every_step_moves(step: str) -> None:
    truth = _video_of(step)
    frames = np.stack([frame(truth, time).astype(np.int16) for time in (3.0, 3.12, 3.24, 3.36)])
    changed = (np.abs(np.diff(frames, axis=0)).max(axis=-1) > 24).mean(axis=(1, 2))
    assert changed.max() > 0.01


def test_boxes_are_tight_around_masks_and_inside_the_picture() -> None:
    truth = plan_videos(WorldSettings(seed=5, videos=1))[0]
    for time in np.arange(0.0, truth.duration, 1.7):
        found = masks(truth, float(time))
        drawn = boxes(truth, float(time)).objects
        assert [box.name for box in drawn] == list(found)
        for box in drawn:
            assert 0 <= box.x0 < box.x1 <= WIDTH
            assert 0 <= box.y0 < box.y1 <= HEIGHT
            inside = found[box.name][box.y0 : box.y1, box.x0 : box.x1]
            assert inside.sum() == found[box.name].sum()
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_masks_never_overlap() -> None:
    truth = _video_of("cut carrot")
    assert np.sum(list(masks(truth, 3.3).values()), axis=0).max() == 1


@pytest.mark.parametrize(("thing", "step"), [("carrot", "cut carrot"), ("wheel", "wash wheel"), ("box", "shake box")])
def test_the_mask_covers_the_pixels_of_the_thing(thing: str, step: str) -> None:
    """The same moment with the thing in another colour differs in its mask, and (slivers apart) nowhere else."""
    truth = _video_of(step)
    seen = truth.seen[0]
    other = truth.model_copy(update={"seen": [seen.model_copy(update={"colour": list(SHADES[thing])[1]})]})
    changed = np.abs(frame(truth, 3.0).astype(np.int16) - frame(other, 3.0)).max(axis=-1) > 6
    mask = masks(truth, 3.0)[thing]
    assert changed.sum() > 0.1 * mask.sum()
    assert (changed & ~_grown(mask)).sum() <= 0.003 * mask.sum()


def _grown(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """The mask and the ring of one pixel around it, where smooth edges mix colours."""
    padded = np.pad(mask, 1)
    shifts = [padded[y : y + HEIGHT, x : x + WIDTH] for y in range(3) for x in range(3)]
    return np.asarray(np.any(shifts, axis=0))


def test_the_two_people_can_be_told_apart() -> None:
    pictures = [frame(_video_of("cut onion", actor=actor), 3.0).astype(float) for actor in ACTORS]
    hands = [masks(_video_of("cut onion", actor=actor), 3.0)["hand"] for actor in ACTORS]
    colours = [picture[hand].mean(axis=0) for picture, hand in zip(pictures, hands, strict=True)]
    assert np.abs(colours[0] - colours[1]).max() > 50


def test_videos_differ_in_background() -> None:
    corners = {tuple(frame(truth, 0.0)[2, 2]) for truth in plan_videos(WorldSettings(videos=12))}
    assert len(corners) >= 6
