"""What is true of a demo world: who says what when, what is seen when, what sounds when, where things are.

Times are float seconds from the container's start, half-open [start, end). Boxes are in pixels of the 320x240
picture, half-open as well: a box covers columns x0..x1-1 and rows y0..y1-1.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

WIDTH, HEIGHT, FPS = 320, 240, 25


class _Truth(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Word(_Truth):
    """One spoken word, written as it stands in its sentence (with its punctuation)."""

    start: float
    end: float
    text: str


class Said(_Truth):
    """One spoken sentence; `step` is the step it describes, or None when it is said but not seen."""

    start: float
    end: float
    text: str
    words: list[Word]
    step: int | None


class Seen(_Truth):
    """One step as it is shown: `actor` does `action` to the `object`, which has the shade `colour`."""

    start: float
    end: float
    step: int
    action: str
    object: str
    colour: str
    actor: str
    description: str


class Sound(_Truth):
    """A span in which the sound of an action is heard."""

    start: float
    end: float
    action: str


class Box(_Truth):
    """The tight box around the visible pixels of one named thing."""

    name: str
    x0: int
    y0: int
    x1: int
    y1: int


class Boxes(_Truth):
    """The boxes of all things visible at one time."""

    time: float
    objects: list[Box]


class VideoTruth(_Truth):
    """Everything that is true of one video; its picture and its sound are pure functions of this."""

    id: str
    title: str
    task: str
    duration: float
    narrator: str
    uploader: str
    upload_date: str
    view_count: int
    language: Literal["en"] = "en"
    said: list[Said]
    seen: list[Seen]
    sounds: list[Sound]
    boxes: list[Boxes]


class VideoSummary(_Truth):
    """A line of the world's table of contents."""

    id: str
    title: str
    task: str
    duration: float


class World(_Truth):
    """The table of contents of a rendered world, written to `world.json`."""

    seed: int
    version: int
    videos: list[VideoSummary]
