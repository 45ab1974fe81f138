"""The dozen kinds of objects: shape, shades, and how large they are.

Every painter draws around (0, 0) in a frame of about 120 x 90 px with the table at y = BASE[name] below the centre.
"""

import math
from collections.abc import Callable

from demo.canvas import Board, Colour, darker, lighter

Painter = Callable[[Board, Colour], None]

# Shades a video may choose from: name -> colour, a kind.
SHADES: dict[str, dict[str, Colour]] = {
    "carrot": {"orange": (245, 130, 32), "deep orange": (226, 98, 20), "light orange": (252, 157, 66)},
    "onion": {"purple": (142, 60, 140), "dark purple": (112, 40, 112), "light purple": (168, 92, 168)},
    "potato": {"tan": (196, 152, 88), "brown": (168, 122, 66), "light tan": (214, 176, 116)},
    "soup": {"blue": (58, 96, 168), "dark blue": (38, 70, 132), "light blue": (88, 128, 198)},
    "dough": {"cream": (244, 224, 178), "pale cream": (250, 236, 204), "beige": (232, 208, 156)},
    "milk": {"white": (246, 248, 252), "cool white": (232, 240, 250), "warm white": (250, 246, 238)},
    "shirt": {"turquoise": (32, 178, 170), "teal": (18, 148, 146), "light turquoise": (84, 204, 194)},
    "paper": {"yellow": (252, 232, 96), "light yellow": (254, 242, 140), "golden yellow": (246, 214, 62)},
    "door": {"wood": (150, 92, 48), "dark wood": (122, 70, 36), "light wood": (176, 116, 66)},
    "chair": {"red": (206, 44, 48), "dark red": (170, 30, 40), "light red": (226, 78, 76)},
    "wheel": {"black": (44, 46, 54), "dark grey": (64, 66, 74), "slate": (54, 62, 82)},
    "box": {"pink": (236, 92, 158), "deep pink": (214, 60, 134), "light pink": (244, 130, 180)},
}

# Half width and distance from the centre down to the table, in px.
HALF_WIDTH = {"carrot": 66, "onion": 42, "potato": 52, "soup": 56, "dough": 54, "milk": 28, "shirt": 58, "paper": 52,
              "door": 40, "chair": 38, "wheel": 44, "box": 48}  # fmt: skip
BASE = {"carrot": 20, "onion": 40, "potato": 34, "soup": 40, "dough": 28, "milk": 50, "shirt": 42, "paper": 40,
        "door": 54, "chair": 54, "wheel": 44, "box": 38}  # fmt: skip

# From the centre up to the top of the thing, in px.
TOP = {"carrot": 19, "onion": 38, "potato": 33, "soup": 36, "dough": 28, "milk": 50, "shirt": 42, "paper": 40,
       "door": 54, "chair": 54, "wheel": 44, "box": 38}  # fmt: skip

# What is under the skin, or inside.
INSIDE: dict[str, Colour] = {
    "carrot": (255, 190, 110), "onion": (240, 220, 242), "potato": (250, 236, 170), "soup": (240, 110, 60),
    "dough": (255, 246, 222), "milk": (252, 252, 255), "paper": (255, 250, 205), "shirt": (190, 240, 235),
    "door": (206, 154, 102), "chair": (240, 150, 140), "wheel": (120, 124, 136), "box": (252, 200, 224),
}  # fmt: skip


def _carrot(board: Board, colour: Colour) -> None:
    for turn in (-0.5, 0.0, 0.5):
        board.ellipse(58 + 10 * math.cos(turn), 20 * math.sin(turn), 17, 6, (70, 160, 66), turn)
    root = [(-66, 2), (-30, -10), (20, -19), (46, -19), (54, -8), (54, 8), (46, 19), (20, 19), (-30, 11)]
    board.polygon(root, colour)
    board.polygon([(-66, 2), (-30, -10), (20, -19), (46, -19), (50, -14), (20, -11), (-30, -5)], lighter(colour))
    for x in (-32, -8, 16, 36):
        board.line([(x, 2), (x + 2, 10)], 2, darker(colour))


def _onion(board: Board, colour: Colour) -> None:
    board.line([(0, -34), (-3, -50)], 7, darker(colour, 0.1))
    board.line([(0, -34), (6, -48)], 5, (120, 150, 60))
    board.polygon([(-8, -40), (8, -40), (22, -24), (-22, -24)], colour)
    board.ellipse(0, 2, 42, 36, colour)
    for rx in (28, 13):
        board.ellipse(0, 2, rx + 2, 36, darker(colour, 0.3))
        board.ellipse(0, 2, rx, 36, lighter(colour, 0.12 if rx > 20 else 0.3))
    board.line([(-5, 38), (-8, 44)], 2, darker(colour))
    board.line([(4, 38), (7, 44)], 2, darker(colour))


def _potato(board: Board, colour: Colour) -> None:
    left = [(12, 34), (-16, 30), (-42, 26), (-52, 4), (-46, -18), (-24, -32)]
    board.polygon([*left, (4, -30), (30, -34), (50, -16), (52, 8), (40, 28)], colour)
    board.ellipse(-14, -14, 24, 9, lighter(colour, 0.2), -0.2)
    for x, y in ((-28, 8), (6, 4), (30, -12), (22, 18), (-8, 20)):
        board.ellipse(x, y, 4.5, 2.5, darker(colour, 0.4))


def _soup(board: Board, colour: Colour) -> None:
    board.round_box(-70, -14, 70, -4, 5, darker(colour, 0.5))
    board.round_box(-56, -28, 56, 40, 14, colour)
    board.round_box(-50, -14, -38, 30, 6, lighter(colour, 0.25))
    board.ellipse(0, -28, 56, 14, lighter(colour, 0.35))
    board.ellipse(0, -27, 49, 10, INSIDE["soup"])
    for x, y in ((-24, -28), (8, -31), (26, -26), (-4, -23)):
        board.ellipse(x, y, 6, 2.5, (250, 200, 90))


def _dough(board: Board, colour: Colour) -> None:
    board.polygon(
        [(-54, 28), (-56, 10), (-44, -10), (-22, -24), (4, -28), (28, -22), (46, -8), (56, 12), (54, 28)], colour
    )
    board.ellipse(-14, -8, 22, 9, lighter(colour, 0.6), -0.4)
    board.line([(10, 6), (24, 2), (36, 10)], 3, darker(colour, 0.15))
    board.line([(-30, 18), (-16, 20)], 3, darker(colour, 0.15))


def _milk(board: Board, colour: Colour) -> None:
    board.round_box(-26, -22, 26, 50, 8, darker(colour, 0.06))
    board.polygon([(-26, -16), (-12, -42), (12, -42), (26, -16)], colour)
    board.box(-12, -52, 12, -40, (40, 120, 220))
    board.box(-26, -4, 26, 28, (60, 140, 235))
    board.ellipse(0, 12, 13, 12, colour)
    board.ellipse(0, 13, 6, 7, (60, 140, 235))


def _shirt(board: Board, colour: Colour) -> None:
    board.polygon([(-30, -36), (-60, -16), (-48, 8), (-30, -4)], darker(colour, 0.12))
    board.polygon([(30, -36), (60, -16), (48, 8), (30, -4)], darker(colour, 0.12))
    board.polygon([(-34, -38), (-14, -42), (14, -42), (34, -38), (34, 42), (-34, 42)], colour)
    board.ellipse(0, -42, 14, 9, darker(colour, 0.4))
    for y in (-8, 10, 28):
        board.box(-34, y, 34, y + 6, lighter(colour, 0.6))


def _paper(board: Board, colour: Colour) -> None:
    board.polygon([(-52, -40), (52, -40), (52, 40), (-52, 40)], colour)
    for x in (-36, -12, 12, 36):
        for y in (-28, -6, 16):
            board.ellipse(x + (6 if y == -6 else 0), y + 6, 5, 5, (240, 120, 90))
    board.polygon([(52, 40), (36, 40), (52, 24)], lighter(colour, 0.7))


def _door(board: Board, colour: Colour) -> None:
    board.box(-40, -54, 40, 54, darker(colour, 0.3))
    board.box(-35, -49, 35, 54, colour)
    for y in (-42, 6):
        board.box(-27, y, 27, y + 40, darker(colour, 0.35))
        board.box(-23, y + 4, 27, y + 40, lighter(colour, 0.22))
        board.box(-23, y + 4, 23, y + 36, lighter(colour, 0.1))
    board.ellipse(29, 2, 5, 5, (250, 206, 70))


def _chair(board: Board, colour: Colour) -> None:
    for x in (-32, 26):
        board.box(x, 6, x + 7, 54, darker(colour, 0.25))
    for x in (-36, 29):
        board.box(x, -54, x + 7, 10, colour)
    for y in (-50, -32):
        board.round_box(-36, y, 36, y + 11, 3, lighter(colour, 0.12))
    board.polygon([(-34, -4), (34, -4), (42, 12), (-42, 12)], colour)
    board.box(-42, 12, 42, 18, darker(colour, 0.2))
    board.box(-28, 34, 28, 39, darker(colour, 0.3))


def _wheel(board: Board, colour: Colour) -> None:
    board.ellipse(0, 0, 44, 44, colour)
    board.ellipse(0, 0, 31, 31, (214, 220, 228))
    for k in range(6):
        angle = math.pi * k / 3 + 0.3
        board.line([(0, 0), (30 * math.cos(angle), 30 * math.sin(angle))], 4, (130, 138, 150))
    board.ellipse(0, 0, 10, 10, (240, 196, 64))


def _box(board: Board, colour: Colour) -> None:
    board.polygon([(-48, -18), (-30, -38), (56, -38), (48, -18)], lighter(colour, 0.35))
    board.polygon([(48, -18), (56, -38), (56, 22), (48, 38)], darker(colour, 0.3))
    board.box(-48, -18, 48, 38, colour)
    board.box(-8, -18, 8, 38, (255, 226, 90))
    board.polygon([(-8, -18), (6, -38), (22, -38), (8, -18)], (255, 240, 150))
    board.ellipse(-6, -32, 12, 6, (255, 214, 60), 0.5)
    board.ellipse(16, -32, 12, 6, (255, 214, 60), -0.5)


PAINTERS: dict[str, Painter] = {
    "carrot": _carrot, "onion": _onion, "potato": _potato, "soup": _soup, "dough": _dough, "milk": _milk,
    "shirt": _shirt, "paper": _paper, "door": _door, "chair": _chair, "wheel": _wheel, "box": _box,
}  # fmt: skip
