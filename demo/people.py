"""The two people who do things: a body behind the table, a face, and arms that reach to where the hands work."""

import math

from demo.canvas import Board, Point, darker, lighter, mix
from demo.look import Person

SHOULDERS_Y = 96


def draw_person(board: Board, name: str, person: Person, x: float, bob: float, mouth: float, blink: bool) -> None:
    """Head and body; `mouth` is how far it is open (0 to 1), `bob` how far the head has sunk, in px."""
    apron = mix(person.sleeve, (128, 128, 140), 0.55)
    with board.named(name):
        board.round_box(x - 46, SHOULDERS_Y - 10, x + 46, 170, 22, person.sleeve)
        board.box(x - 22, SHOULDERS_Y + 12, x + 22, 170, apron)  # the apron
        board.line([(x - 18, SHOULDERS_Y + 14), (x - 13, SHOULDERS_Y - 8)], 4, apron)
        board.line([(x + 18, SHOULDERS_Y + 14), (x + 13, SHOULDERS_Y - 8)], 4, apron)
        with board.moved(x, 48 + bob):
            _head(board, person, mouth, blink)


def _head(board: Board, person: Person, mouth: float, blink: bool) -> None:
    if person.long_hair:
        board.round_box(-33, -26, 33, 38, 20, person.hair)
    board.round_box(-9, 18, 9, 46, 6, darker(person.skin, 0.15))
    board.ellipse(0, 2, 26, 29, person.skin)
    if person.long_hair:
        board.polygon(
            [(-28, 2), (-28, -20), (-10, -34), (14, -33), (28, -18), (28, 2), (16, -14), (-6, -18)], person.hair
        )
    else:
        board.polygon(
            [(-28, -2), (-27, -24), (-8, -37), (16, -34), (28, -20), (27, -2), (20, -14), (-20, -13)], person.hair
        )
        board.polygon([(-24, 12), (24, 12), (18, 27), (0, 33), (-18, 27)], person.hair)
    for side in (-1, 1):
        board.ellipse(side * 10, 0, 3.2, 0.8 if blink else 4, (36, 30, 40))
        board.ellipse(side * 17, 10, 5, 3, lighter((230, 110, 100), 0.2))
    board.ellipse(0, 6, 3, 3.5, darker(person.skin, 0.15))
    board.ellipse(0, 17, 8, 2.2 + 5 * mouth, (150, 40, 50))
    board.ellipse(0, 17 - 1.5 * mouth, 6, 0.9 + 1.5 * mouth, (255, 255, 255))


def draw_arm(board: Board, person: Person, shoulder: Point, hand: Point, bend: float) -> None:
    """An arm from the shoulder to the hand; `bend` says to which side the elbow goes (-1 or 1)."""
    (sx, sy), (hx, hy) = shoulder, hand
    reach = math.hypot(hx - sx, hy - sy) or 1.0
    upper = max(66.0, reach / 2 + 2)
    rise = math.sqrt(max(upper**2 - (reach / 2) ** 2, 0.0)) * 0.55
    ex = (sx + hx) / 2 + bend * abs(hy - sy) / reach * rise
    ey = (sy + hy) / 2 + abs(hx - sx) / reach * rise
    cuff = hx + (ex - hx) * 0.34, hy + (ey - hy) * 0.34
    with board.named("arm"):
        board.line([shoulder, (ex, ey), cuff], 19, darker(person.sleeve, 0.12))
        board.line([cuff, (cuff[0] + (hx - ex) * 0.06, cuff[1] + (hy - ey) * 0.06)], 19, person.cuff)
    with board.named("hand"):
        board.line([(cuff[0] + (hx - cuff[0]) * 0.3, cuff[1] + (hy - cuff[1]) * 0.3), hand], 13, person.skin)
        board.ellipse(hx, hy, 11, 10, person.skin)
        board.line([(hx - 5, hy + 1), (hx - 5, hy + 6)], 1.6, darker(person.skin, 0.3))
        board.line([(hx + 1, hy + 2), (hx + 1, hy + 7)], 1.6, darker(person.skin, 0.3))
