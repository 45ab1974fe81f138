"""Which part of a picture a model sees."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A part of a picture, in px."""

    left: float
    top: float
    width: float
    height: float

    def even(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, width and height as even numbers within a picture of that size: colours of a film lie so."""
        wide, high = (_even(side, most) for side, most in ((self.width, width), (self.height, height)))
        return _even(self.left, width - wide), _even(self.top, height - high), wide, high


@dataclass(frozen=True)
class Crop:
    """A square of `size` px out of a picture scaled to `short_side` px; `x` and `y` in [0, 1] say where it lies.

    With `area` it is instead that share of the picture, `aspect` times as wide as high as far as the picture allows,
    whatever `short_side` is (the crop of Szegedy et al., 2015, arXiv:1409.4842).
    """

    size: int
    short_side: int
    x: float = 0.5
    y: float = 0.5
    flip: bool = False
    area: float | None = None
    aspect: float = 1.0

    def box(self, width: int, height: int) -> Box:
        """The part of a picture of this size that is scaled to the square."""
        if self.area is None:
            wide = high = self.size / self.short_side * min(width, height)
        else:
            wide = min(math.sqrt(self.area * width * height * self.aspect), width)
            high = min(math.sqrt(self.area * width * height / self.aspect), height)
        return Box(self.x * (width - wide), self.y * (height - high), wide, high)


def _even(pixels: float, most: int) -> int:
    """The nearest even number that is not above `most`."""
    return 2 * min(round(pixels / 2), most // 2)
