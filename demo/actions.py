"""The dozen kinds of actions: what each looks like when it is done to any thing.

An action draws in a frame around the thing's centre and returns where the two hands are. `phase` counts its cycles
(see demo.motion), `share` goes from 0 to 1 over the step: what has been cut, peeled or painted stays so.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from demo import tools
from demo.canvas import Board, Colour, Point, darker, lighter, mix
from demo.objects import BASE, HALF_WIDTH, INSIDE, PAINTERS, TOP

WATER: Colour = (120, 196, 246)
FOAM: Colour = (250, 252, 255)
FLUIDS: dict[str, Colour] = {"milk": (252, 252, 255), "soup": INSIDE["soup"]}


@dataclass(frozen=True, kw_only=True)
class Doing:
    """An action at one moment."""

    board: Board
    thing: str
    colour: Colour
    phase: float
    share: float
    paint: Colour

    @property
    def part(self) -> float:
        """How far the present cycle has gone, in [0, 1)."""
        return self.phase % 1.0

    @property
    def swing(self) -> float:
        """1 at the start of a cycle, 0 in its middle, smoothly."""
        return (1 + math.cos(2 * math.pi * self.phase)) / 2

    @property
    def top(self) -> float:
        """y of the thing's top."""
        return -TOP[self.thing]

    @property
    def base(self) -> float:
        """y of the table."""
        return BASE[self.thing]

    @property
    def half(self) -> float:
        """Half the thing's width."""
        return HALF_WIDTH[self.thing]

    def draw(self, colour: Colour | None = None) -> None:
        """Draw the thing itself."""
        with self.board.named(self.thing):
            PAINTERS[self.thing](self.board, colour or self.colour)

    def draw_between(self, x0: float, x1: float) -> None:
        """Draw the part of the thing between two upright lines."""
        with self.board.clipped((x0, 0), (1, 0)), self.board.clipped((x1, 0), (-1, 0)):
            self.draw()


Hands = tuple[Point, Point]
Animation = Callable[[Doing], Hands]


def _cut(doing: Doing) -> Hands:
    board, half = doing.board, doing.half + 14
    edge = half * (0.85 - 1.5 * doing.share)
    slab = 15.0
    doing.draw_between(-90, edge)
    count = math.ceil((half - edge) / slab)
    for k in range(count):
        left = edge + k * slab
        with board.moved(8 + 6 * k, 3 + (k % 2) * 4, 0.04 * (k % 3)):
            doing.draw_between(left, left + slab)
            with board.named(doing.thing):
                board.ellipse(left + 1, 2, 2.5, min(doing.base, 24) * 0.7, INSIDE[doing.thing])
    lift = 52 * doing.swing
    with board.moved(edge + 20, doing.base - 2 - lift, 0.15 * doing.swing):
        tools.knife(board)
    return (edge + 48, doing.base - 25 - lift), (edge - 38, doing.top + 4)


def _peel(doing: Doing) -> Hands:
    board = doing.board
    strips = 5
    strip = int(doing.phase) % strips
    stroke = min(doing.part / 0.75, 1.0)
    stroke = 1 - stroke if doing.part < 0.75 else (doing.part - 0.75) / 0.25
    height = (doing.base - doing.top) / strips
    edge = -doing.half + 2 * doing.half * stroke
    doing.draw()
    for k in range(strip + 1):
        y0, done = doing.top + k * height, k < strip or doing.part >= 0.75
        left = -doing.half if done else edge
        upper, lower = board.clipped((left, y0 + 2), (0, 1)), board.clipped((left, y0 + height - 1), (0, -1))
        with upper, lower, board.clipped((left, 0), (1, 0)), board.dipped(INSIDE[doing.thing]):
            doing.draw()
    y = doing.top + (strip + 0.5) * height
    if doing.part < 0.75:
        curl = [(edge + 6 * math.sin(j * 1.1 + doing.phase * 9) - j, y + j * (1 - stroke) * 6) for j in range(8)]
        board.line(curl, 7, doing.colour)
        board.line(curl, 2, lighter(doing.colour, 0.4))
    with board.moved(edge, y):
        tools.peeler(board)
    return (edge + 42, y - 46), (-doing.half + 4, doing.base - 8)


def _wash(doing: Doing) -> Hands:
    board, angle = doing.board, 2 * math.pi * doing.phase
    rim = doing.base - 22
    lift = min(rim + 8 - doing.base, 0.0) - (16 if doing.top > -30 else 0)  # flat things are held above the foam
    with board.moved(0, lift + 3 * math.sin(angle), 0.06 * math.cos(angle)):
        doing.draw()
    for k in range(9):
        fall = (doing.phase * 1.7 + k / 9) % 1
        x = -0.9 * doing.half + 1.8 * doing.half * ((k * 5) % 9) / 8
        board.ellipse(x, doing.top + lift - 24 + fall * (rim - doing.top - lift + 24), 4, 9, WATER)
    with board.moved(0, rim):
        tools.bowl(board, (64, 150, 226), 84)
    for k in range(12):
        size = 4 + 5 * ((k * 7 % 12) / 12) * min(1.0, 0.4 + doing.share)
        sway = 4 * math.sin(angle + k)
        x, y = -78 + 14 * k + sway, rim + 1 - 3 * (k % 3) + sway / 3
        board.ellipse(x, y, size + 2, size + 2, FOAM)
        board.ellipse(x - 2, y - 2, size * 0.5, size * 0.5, (222, 238, 252))
    x, y = 0.55 * doing.half * math.cos(angle), lift + 10 * math.sin(angle) - 4
    with board.moved(x, y, 0.2 * math.sin(angle), 0.85, 0.85):
        tools.sponge(board)
    return (x + 8, y - 10), (-doing.half + 2, doing.top + lift + 12)


def _pour(doing: Doing) -> Hands:
    board, fluid, angle = doing.board, FLUIDS[doing.thing], 2 * math.pi * doing.phase
    tilt = 1.05 + 0.3 * math.sin(angle)
    mouth_y, floor = -50.0, doing.base
    sway = 8 * math.sin(2 * angle)
    level = floor - 10 - 34 * doing.share
    board.polygon(
        [(-54, mouth_y + 8), (-30, mouth_y - 2), (-38 + sway, level), (-62 + sway, level)], darker(fluid, 0.22)
    )
    board.polygon([(-50, mouth_y + 6), (-34, mouth_y), (-42 + sway, level), (-58 + sway, level)], fluid)
    for k in range(4):
        fall = (3 * doing.phase + k / 4) % 1
        x, y = -42 + (sway - 8) * fall, mouth_y + 6 + fall * (level - mouth_y - 12)
        board.ellipse(x, y, 4, 9, darker(fluid, 0.3))
    depth = (level - floor + 44) / 44
    board.ellipse(-48, level + 2, 54 - 26 * depth, 8, darker(fluid, 0.1))
    for k in range(6):
        hop = (3 * doing.phase + k / 6) % 1
        board.ellipse(-50 + sway + (k - 2.5) * 17 * hop, level - 90 * hop * (1 - hop), 4.5, 4.5, darker(fluid, 0.1))
    with board.moved(-48, floor - 44):
        tools.bowl(board, (96, 190, 160), 56)
    with board.moved(24, -66, -tilt, 0.8, 0.8):
        doing.draw()
    return (60, -58), (16, -98)


def _stir(doing: Doing) -> Hands:
    board, angle = doing.board, 2 * math.pi * doing.phase
    x, y = 30 * math.cos(angle), 7 * math.sin(angle)
    if doing.thing == "soup":
        doing.draw()
        surface = -27.0
    else:
        surface = doing.base - 44
        with board.moved(0, -26, 0.12 * math.sin(angle), 0.95, 0.95):
            doing.draw()
    swirl = [(34 * math.cos(angle - 0.25 * k), surface + 8 * math.sin(angle - 0.25 * k)) for k in range(7)]
    board.line(swirl, 3, lighter(INSIDE[doing.thing], 0.5))
    if y < 0 or doing.thing != "soup":
        with board.moved(x, surface + y):
            tools.spoon(board, 26 - x * 0.5)
    if doing.thing != "soup":
        with board.moved(0, surface):
            tools.bowl(board, (232, 96, 64), 72)
    elif y >= 0:
        with board.moved(x, surface + y):
            tools.spoon(board, 26 - x * 0.5)
    return (x * 0.5 + 24, surface + y - 80), (-62, surface + 14)


def _fold(doing: Doing) -> Hands:
    board, part = doing.board, doing.part
    opened = part / 0.5 if part < 0.5 else 1.0 if part < 0.65 else 1 - (part - 0.65) / 0.35
    theta = math.pi * (1 - math.cos(math.pi * opened)) / 2 * 0.97
    doing.draw_between(-90, 0)
    cos, sin = math.cos(theta), math.sin(theta)
    with board.affine(cos, 0, 0, -0.75 * sin, 1, 0):
        if theta < math.pi / 2:
            doing.draw_between(0, 90)
        else:
            with board.dipped(mix(doing.colour, INSIDE[doing.thing], 0.55)):
                doing.draw_between(0, 90)
    if opened > 0:
        board.line([(0, doing.top), (0, doing.base)], 2, darker(doing.colour, 0.4))
    tip = doing.half * cos, -0.75 * sin * doing.half
    return (tip[0], tip[1] - 6), (-doing.half - 2, doing.base - 10)


def _roll(doing: Doing) -> Hands:
    board = doing.board
    flat = 1 - 0.42 * doing.share
    x = 48 * math.sin(2 * math.pi * doing.phase)
    with board.moved(0, doing.base * (1 - flat), 0, 1.2 - 0.2 * flat, flat):
        doing.draw()
    with board.moved(x, -2):
        tools.rolling_pin(board, x / 8)
    return (x + 34, -58), (x - 34, 54)


def _press(doing: Doing) -> Hands:
    board = doing.board
    height = doing.base - doing.top
    plate = doing.top - 46 * doing.swing + 0.36 * height * (1 - doing.swing)
    squash = min(1.0, (doing.base - plate) / height)
    with board.moved(0, doing.base * (1 - squash), 0, 1 + (1 - squash) * 0.45, squash):
        doing.draw()
    if doing.swing < 0.25:
        for side in (-1, 1):
            for k in range(3):
                reach = 70 + 24 * (0.25 - doing.swing) * 4 + 7 * k
                board.ellipse(side * reach, doing.base - 6 - 9 * k, 8 - 2 * k, 7 - 2 * k, (236, 238, 244))
    with board.moved(0, plate):
        tools.press(board)
    return (34, plate - 48), (-34, plate - 48)


def _hammer(doing: Doing) -> Hands:
    board, lift = doing.board, doing.swing**0.8
    nail = min(int(doing.share * 3), 2)
    spacing = doing.half * 0.6
    jolt = 3 if doing.swing < 0.12 else 0
    with board.moved(0, jolt):
        doing.draw()
        for k in range(3):
            depth = 1.0 if k < nail else doing.share * 3 - nail if k == nail else 0.0
            x, head = (k - 1) * spacing, doing.top - 22 * (1 - depth) - 2
            board.line([(x, doing.top + 4), (x, head)], 4, (110, 118, 132))
            board.line([(x - 5, head), (x + 5, head)], 4, (150, 158, 172))
            if k == nail:
                face = head
    x = (nail - 1) * spacing
    if doing.swing < 0.15:
        for k in range(8):
            angle = math.pi * k / 4 + 0.4
            far = (x + 34 * math.cos(angle), face + 26 * math.sin(angle))
            board.line([(x + 18 * math.cos(angle), face + 14 * math.sin(angle)), far], 4, (255, 214, 40))
    grip = x + 82, face - 14
    with board.moved(*grip, 1.25 * lift), board.moved(-82, 16):
        tools.hammer(board)
    return grip, (-doing.half + 2, doing.top + 14)


def _tighten(doing: Doing) -> Hands:
    board, angle = doing.board, 2 * math.pi * doing.phase
    with board.moved(0, 0, 0.03 * math.sin(angle)):
        doing.draw()
    y = -6.0
    with board.moved(0, y, angle):
        tools.wrench(board)
    with board.moved(0, y):
        tools.bolt(board, angle)
    sparks = [(30 * math.cos(angle - 0.5 - 0.2 * k), y + 30 * math.sin(angle - 0.5 - 0.2 * k)) for k in range(6)]
    board.line(sparks, 3, (255, 240, 150))
    return (80 * math.cos(angle), y + 80 * math.sin(angle)), (-doing.half + 2, doing.base - 12)


def _paint(doing: Doing) -> Hands:
    board = doing.board
    doing.draw()
    x = doing.half * 0.95 * math.cos(2 * math.pi * doing.phase)
    y = doing.top + 12 + (doing.base - doing.top - 12) * doing.share
    with board.clipped((0, y), (0, -1)), board.dipped(doing.paint):
        doing.draw()
    with board.moved(-92, doing.base + 6):
        tools.paint_pot(board, doing.paint)
    with board.moved(x, y + 4, 0.35 * math.sin(2 * math.pi * doing.phase)):
        tools.brush(board, doing.paint)
    return (x + 4, y - 58), (doing.half + 4, doing.base - 10)


def _shake(doing: Doing) -> Hands:
    board, angle = doing.board, 2 * math.pi * doing.phase
    y, turn = -24 + 26 * math.sin(angle), 0.22 * math.sin(angle + 1)
    for side in (-1, 1):
        for k in range(3):
            reach = doing.half + 22 + 9 * k
            size = 16 - 3 * k
            board.line([(side * reach, -24 - size), (side * (reach + 4), -24), (side * reach, -24 + size)], 4, FOAM)
    with board.moved(0, y, turn):
        doing.draw()
    return (doing.half - 2, y + 6), (-doing.half + 2, y + 6)


ANIMATIONS: dict[str, Animation] = {
    "cut": _cut, "peel": _peel, "wash": _wash, "pour": _pour, "stir": _stir, "fold": _fold, "roll": _roll,
    "press": _press, "hammer": _hammer, "tighten": _tighten, "paint": _paint, "shake": _shake,
}  # fmt: skip
