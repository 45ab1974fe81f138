"""How one video looks, drawn from its id alone: background, colours, pace, side, people."""

import random
from dataclasses import dataclass
from functools import lru_cache

from demo.canvas import Colour
from demo.vocabulary import ACTORS

WALLS: tuple[Colour, ...] = (
    (214, 230, 240), (246, 226, 204), (208, 232, 212), (236, 214, 230), (250, 240, 206), (204, 214, 238),
    (190, 222, 222), (240, 206, 196), (176, 190, 208), (226, 226, 218), (86, 104, 130), (120, 92, 110),
)  # fmt: skip
TABLES: tuple[Colour, ...] = (
    (222, 188, 146), (186, 140, 100), (236, 232, 226), (150, 160, 172), (120, 84, 66), (200, 214, 208),
    (92, 112, 120), (238, 214, 190),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = ((40, 110, 230), (250, 196, 30), (40, 180, 90), (150, 70, 210), (250, 120, 40))
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
def place_of(video_id: str, step: int) -> Place:
    """Where the thing of a step stands; y is that of the table under it."""
    draw = random.Random(f"{video_id}/place/{step}")
    return Place(x=draw.uniform(138, 182), y=draw.uniform(206, 218), size=draw.uniform(0.98, 1.2))


@dataclass(frozen=True, kw_only=True)
class Person:
    """What tells one person from the other."""

    skin: Colour
    sleeve: Colour
    cuff: Colour
    hair: Colour
    long_hair: bool


PEOPLE: dict[str, Person] = {
    "Ada": Person(skin=(150, 96, 66), sleeve=(250, 186, 40), cuff=(255, 255, 255), hair=(40, 28, 34), long_hair=True),
    "Ben": Person(
        skin=(246, 202, 170), sleeve=(58, 128, 84), cuff=(190, 226, 160), hair=(176, 84, 40), long_hair=False
    ),
}
assert tuple(PEOPLE) == ACTORS
