"""The tools that hands hold, each drawn around the point that works (the blade's edge, the spoon's bowl, ...)."""

import math

from demo.canvas import Board, Colour, darker, lighter

STEEL: Colour = (200, 208, 218)
WOOD: Colour = (214, 164, 104)
GRIP: Colour = (52, 58, 72)


def knife(board: Board) -> None:
    """A wide kitchen knife; the edge lies on y = 0, the grip to the right."""
    with board.named("knife"):
        board.polygon([(-62, -2), (-52, 0), (6, 0), (6, -30), (-40, -30)], STEEL)
        board.polygon([(-62, -2), (-52, 0), (6, 0), (6, -5), (-58, -6)], lighter(STEEL, 0.6))
        board.round_box(4, -30, 48, -16, 5, GRIP)


def peeler(board: Board) -> None:
    """A peeler with a green grip, leaning to the right."""
    with board.named("peeler"):
        board.line([(0, 0), (16, -16)], 5, STEEL)
        board.line([(-6, -8), (8, 6)], 5, darker(STEEL, 0.3))
        board.line([(16, -16), (40, -42)], 11, (56, 170, 84))


def sponge(board: Board) -> None:
    """A yellow sponge with a green back."""
    with board.named("sponge"):
        board.round_box(-26, -15, 26, 13, 6, (252, 210, 48))
        board.round_box(-26, -15, 26, -6, 4, (70, 170, 90))
        for x, y in ((-14, 2), (2, 6), (14, 0)):
            board.ellipse(x, y, 3, 2, (220, 170, 20))


def spoon(board: Board, lean: float) -> None:
    """A wooden spoon standing in a pot; `lean` is how far its grip is to the right of its bowl, in px."""
    with board.named("spoon"):
        board.line([(0, 0), (lean, -86)], 7, WOOD)
        board.ellipse(0, 2, 13, 7, darker(WOOD, 0.15))


def rolling_pin(board: Board, turn: float) -> None:
    """A rolling pin that leans across the table; `turn` (radians) is how far it has rolled."""
    with board.named("rolling pin"), board.moved(turn=-1.05):
        board.line([(-70, 0), (70, 0)], 9, (196, 52, 52))
        board.round_box(-52, -17, 52, 17, 8, WOOD)
        for k in range(3):
            angle = turn + 2 * math.pi * k / 3
            if math.cos(angle) > 0:
                y = 15 * math.sin(angle)
                board.box(-50, y - 2, 50, y + 2, darker(WOOD, 0.28))


def press(board: Board) -> None:
    """A heavy purple press plate; its underside lies on y = 0."""
    with board.named("press"):
        board.box(-7, -40, 7, -14, darker(STEEL, 0.2))
        board.round_box(-46, -50, 46, -38, 6, (60, 60, 76))
        board.round_box(-68, -18, 68, 0, 5, (108, 70, 200))
        board.box(-62, -16, 62, -12, (150, 116, 232))


def hammer(board: Board) -> None:
    """A hammer whose face strikes at (0, 0) and whose grip reaches to the right."""
    with board.named("hammer"):
        board.line([(0, -16), (82, -16)], 9, WOOD)
        board.round_box(-12, -34, 12, -2, 3, (74, 82, 98))
        board.box(-14, -8, 14, 0, (130, 140, 156))


def wrench(board: Board) -> None:
    """A red wrench around the bolt at (0, 0), its grip to the right."""
    with board.named("wrench"):
        board.line([(8, 0), (88, 0)], 14, (222, 48, 40))
        board.line([(24, 0), (80, 0)], 5, (250, 120, 100))
        board.ellipse(0, 0, 21, 21, STEEL)
        board.ellipse(-3, 0, 12, 12, darker(STEEL, 0.6))


def bolt(board: Board, turn: float) -> None:
    """A six-sided golden bolt."""
    points = [(11 * math.cos(turn + math.pi * k / 3), 11 * math.sin(turn + math.pi * k / 3)) for k in range(6)]
    board.polygon(points, (250, 204, 60))


def brush(board: Board, paint: Colour) -> None:
    """A wide brush full of paint; its bristles end at y = 0."""
    with board.named("brush"):
        board.box(-19, -20, 19, 0, paint)
        board.box(-19, -28, 19, -18, STEEL)
        board.polygon([(-19, -28), (19, -28), (7, -42), (7, -72), (-7, -72), (-7, -42)], WOOD)


def paint_pot(board: Board, paint: Colour) -> None:
    """An open tin of paint standing on y = 0."""
    board.box(-17, -32, 17, 0, STEEL)
    board.box(-17, -24, 17, -8, paint)
    board.ellipse(0, -32, 17, 5, darker(STEEL, 0.3))
    board.ellipse(0, -31, 14, 3.5, paint)


def bowl(board: Board, colour: Colour, half_width: float) -> None:
    """The front of a round bowl whose rim lies on y = 0 and which is 44 px high."""
    with board.named("bowl"):
        w = half_width
        board.polygon([(-w, 0), (w, 0), (w * 0.86, 26), (w * 0.55, 44), (-w * 0.55, 44), (-w * 0.86, 26)], colour)
        board.box(-w, 0, w, 6, lighter(colour, 0.5))
        board.polygon([(-w * 0.93, 13), (w * 0.93, 13), (w * 0.89, 20), (-w * 0.89, 20)], darker(colour, 0.25))
