"""One moment of a video: the room, the person, the table, the thing and what is done to it.

Both the frame and the masks are pure functions of the truth of a video and a time.
"""

import math
from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from demo.actions import ANIMATIONS, Doing
from demo.canvas import Board, Colour, MaskBoard, Picture, Point, darker, mix
from demo.look import PEOPLE, Look, Person, Place, look_of, place_of
from demo.motion import rate
from demo.objects import BASE, HALF_WIDTH, PAINTERS, SHADES
from demo.people import SHOULDERS_Y, draw_arm, draw_person
from demo.rooms import draw_table, room
from demo.truth import Box, Boxes, Seen, VideoTruth

SLIDE = 0.4  # seconds in which a thing comes to its place before its step, and leaves it afterwards


def frame(truth: VideoTruth, time: float) -> npt.NDArray[np.uint8]:
    """The picture at a time (seconds), uint8 of shape (240, 320, 3)."""
    look = look_of(truth.id)
    board = Picture(room(look))
    _draw(board, truth, look, time)
    return board.pixels()


def masks(truth: VideoTruth, time: float) -> dict[str, npt.NDArray[np.bool_]]:
    """The visible pixels of every named thing at a time (seconds), bool arrays of shape (240, 320).

    Names are those of objects ("carrot"), tools ("knife"), people ("Ada"), "arm" and "hand".
    """
    board = MaskBoard()
    _draw(board, truth, look_of(truth.id), time)
    return board.masks()


def boxes(truth: VideoTruth, time: float) -> Boxes:
    """The tight boxes around the masks at a time."""
    found: list[Box] = []
    for name, mask in masks(truth, time).items():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
        found.append(Box(name=name, x0=x0, y0=y0, x1=x1, y1=y1))
    return Boxes(time=time, objects=found)


def _draw(board: Board, truth: VideoTruth, look: Look, time: float) -> None:
    step = _nearest(truth, time)
    person = PEOPLE[step.actor]
    bob = 1.5 * math.sin(2.2 * time)
    blink = time % 3.1 < 0.14
    draw_person(board, step.actor, person, look.person_x, bob, _mouth(truth, time), blink)
    draw_table(board, look)
    place = place_of(truth.id, step.step, step.object)
    shade = mix((20, 16, 30), SHADES[step.object][step.colour], look.light)
    if step.start <= time < step.end:
        _act(board, look, person, place, step, shade, time)
    else:
        _wait(board, look, person, place, step, shade, time)


def _nearest(truth: VideoTruth, time: float) -> Seen:
    """The step that is seen at a time, or else the nearer of its neighbours."""
    after = bisect_right([seen.start for seen in truth.seen], time)
    before = max(after - 1, 0)
    if after < len(truth.seen) and truth.seen[after].start - time < time - truth.seen[before].end:
        return truth.seen[after]
    return truth.seen[before]


def _mouth(truth: VideoTruth, time: float) -> float:
    """How far the mouth is open: it moves while somebody speaks."""
    k = bisect_right([said.start for said in truth.said], time) - 1
    if k < 0 or time >= truth.said[k].end:
        return 0.0
    return abs(math.sin(11 * time)) * (0.6 + 0.4 * math.sin(5.3 * time))


def _shadow(board: Board, look: Look, x: float, place: Place, half: float) -> None:
    board.ellipse(x, place.y, half * place.size * 1.08, 8 * place.size, darker(look.table, 0.25))


def _act(board: Board, look: Look, person: Person, place: Place, step: Seen, shade: Colour, time: float) -> None:
    """The step under way: the thing, the tool, and both arms reaching to where the action wants the hands."""
    phase = (time - step.start) * rate(step.action, look.pace)
    share = (time - step.start) / (step.end - step.start)
    doing = Doing(board=board, thing=step.object, colour=shade, phase=phase, share=share, paint=look.paint)
    sx = -place.size if look.mirrored else place.size
    centre_y = place.y - BASE[step.object] * place.size
    _shadow(board, look, place.x, place, HALF_WIDTH[step.object])
    with board.moved(place.x, centre_y, 0, sx, place.size):
        main, other = ANIMATIONS[step.action](doing)
    hands = [(place.x + sx * x, centre_y + place.size * y) for x, y in (main, other)]
    _arms(board, look, person, sorted(hands))


def _wait(board: Board, look: Look, person: Person, place: Place, step: Seen, shade: Colour, time: float) -> None:
    """Between steps: the thing slides in or out and the hands rest on the table."""
    away = (step.start - time if time < step.start else time - step.end) / SLIDE
    if away < 1:
        x = place.x + (360 if time < step.start else -360) * away**2
        _shadow(board, look, x, place, HALF_WIDTH[step.object])
        with (
            board.moved(x, place.y - BASE[step.object] * place.size, 0, place.size, place.size),
            board.named(step.object),
        ):
            PAINTERS[step.object](board, shade)
    wave = 4 * math.sin(3 * time)
    _arms(board, look, person, [(look.person_x - 62, 172 + wave), (look.person_x + 62, 172 - wave)])


def _arms(board: Board, look: Look, person: Person, hands: list[Point]) -> None:
    """Both arms; the left one goes to the left hand."""
    left, right = hands
    draw_arm(board, person, (look.person_x - 38, SHOULDERS_Y + 6), left, -1)
    draw_arm(board, person, (look.person_x + 38, SHOULDERS_Y + 6), right, 1)
