"""How one video looks, drawn from its id alone: background, colours, pace, side, people."""

import random
from dataclasses import dataclass
from functools import lru_cache

from demo.canvas import Colour
from demo.objects import BASE, TOP
from demo.vocabulary import ACTORS

WALLS: tuple[Colour, ...] = (
    (220, 231, 238), (240, 229, 216), (216, 231, 218), (233, 220, 230), (243, 237, 220), (213, 219, 234),
    (205, 224, 224), (236, 216, 210), (188, 198, 210), (228, 228, 222), (112, 124, 142), (134, 116, 126),
)  # fmt: skip
TABLES: tuple[Colour, ...] = (
    (226, 206, 182), (196, 172, 148), (236, 232, 226), (160, 168, 176), (122, 104, 94), (204, 214, 210),
    (104, 118, 124), (236, 222, 206),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = ((40, 110, 230), (250, 196, 30), (40, 180, 90), (150, 70, 210), (250, 120, 40))
TALLEST = 112  # px
BACKGROUNDS = ("window", "tiles", "shelves", "stripes", "dots", "pegboard")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What stays the same throughout a video."""

    background: str
    wall: Colour
    table: Colour
    planks: bool
    pace: float  # 1 is the usual speed of all actions
    mirrored: bool  # the tool is held in the picture's left half
    person_x: float
    light: float  # 1 is full light
    paint: Colour


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how large the thing of one step is."""

    x: float
    y: float
    size: float


@lru_cache(maxsize=256)
def look_of(video_id: str) -> Look:
    """The look of a video."""
    draw = random.Random(f"{video_id}/look")
    return Look(
        background=draw.choice(BACKGROUNDS),
        wall=draw.choice(WALLS),
        table=draw.choice(TABLES),
        planks=draw.random() < 0.5,
        pace=draw.uniform(0.8, 1.25),
        mirrored=draw.random() < 0.4,
        person_x=draw.uniform(120, 200),
        light=draw.uniform(0.86, 1.0),
        paint=draw.choice(PAINTS),
    )


@lru_cache(maxsize=4096)
def place_of(video_id: str, step: int, thing: str) -> Place:
    """Where the thing of a step stands; y is that of the table under it. Tall things are made a little smaller."""
    draw = random.Random(f"{video_id}/place/{step}")
    return Place(
        x=draw.uniform(138, 182),
        y=draw.uniform(210, 222),
        size=min(draw.uniform(1.1, 1.35), TALLEST / (TOP[thing] + BASE[thing])),
    )


@dataclass(frozen=True, kw_only=True)
class Person:
    """What tells one person from the other."""

    skin: Colour
    sleeve: Colour
    cuff: Colour
    hair: Colour
    long_hair: bool


PEOPLE: dict[str, Person] = {
    "Ada": Person(skin=(150, 96, 66), sleeve=(62, 70, 104), cuff=(236, 238, 244), hair=(40, 28, 34), long_hair=True),
    "Ben": Person(
        skin=(246, 202, 170), sleeve=(226, 228, 224), cuff=(120, 140, 150), hair=(176, 84, 40), long_hair=False
    ),
}
assert tuple(PEOPLE) == ACTORS
