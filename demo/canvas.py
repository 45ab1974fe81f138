"""A small flat-design drawing board: polygons, ellipses and thick lines under affine transforms.

The same drawing code makes the picture (`Picture`, colours, drawn at twice the size and averaged down, so edges are
smooth) and the truth (`MaskBoard`, one number a named thing, drawn at the same size and then sampled).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from demo.truth import HEIGHT, WIDTH

OVERSAMPLING = 2

Colour = tuple[int, int, int]
Point = tuple[float, float]
Affine = tuple[float, float, float, float, float, float]  # x' = a x + b y + c, y' = d x + e y + f


def _circle(corners: int) -> list[Point]:
    return [(math.cos(2 * math.pi * k / corners), math.sin(2 * math.pi * k / corners)) for k in range(corners)]


_CIRCLES = {corners: _circle(corners) for corners in (10, 16, 28)}


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """A colour `share` of the way from one to the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def lighter(colour: Colour, share: float = 0.25) -> Colour:
    """The colour moved towards white."""
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float = 0.25) -> Colour:
    """The colour moved towards a warm black."""
    return mix(colour, (30, 20, 30), share)


class Board:
    """Draws shapes in local coordinates; `moved`, `clipped` and `dipped` hold inside their with-blocks."""

    def __init__(self, image: Image.Image, scale: float) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)
        self._stage: Affine = (scale, 0.0, 0.0, 0.0, scale, 0.0)
        self._clips: list[tuple[float, float, float]] = []  # half-planes a x + b y + c >= 0 in image coordinates
        self._dip: Colour | None = None
        self._name = ""

    def _ink(self, colour: Colour) -> Colour | int:
        return colour if self._dip is None else mix(self._dip, colour, 0.12)

    @contextmanager
    def affine(self, a: float, b: float, c: float, d: float, e: float, f: float) -> Iterator[None]:
        """Put everything inside through x' = a x + b y + c, y' = d x + e y + f."""
        before = self._stage
        p, q, r, s, t, u = before
        self._stage = (p * a + q * d, p * b + q * e, p * c + q * f + r, s * a + t * d, s * b + t * e, s * c + t * f + u)
        try:
            yield
        finally:
            self._stage = before

    @contextmanager
    def moved(self, x: float = 0, y: float = 0, turn: float = 0, sx: float = 1, sy: float = 1) -> Iterator[None]:
        """Draw everything inside scaled by (sx, sy), turned clockwise by `turn` radians, then moved by (x, y)."""
        cos, sin = math.cos(turn), math.sin(turn)
        with self.affine(cos * sx, -sin * sy, x, sin * sx, cos * sy, y):
            yield

    @contextmanager
    def clipped(self, point: Point, inwards: Point) -> Iterator[None]:
        """Keep only what lies on the inner side of the line through `point` square to `inwards`."""
        (x, y), (nx, ny) = point, inwards
        (px, py), (qx, qy), (ix, iy) = self._place([(x, y), (x - ny, y + nx), (x + nx, y + ny)])
        a, b = qy - py, px - qx
        if a * (ix - px) + b * (iy - py) < 0:
            a, b = -a, -b
        self._clips.append((a, b, -a * px - b * py))
        try:
            yield
        finally:
            self._clips.pop()

    @contextmanager
    def dipped(self, colour: Colour) -> Iterator[None]:
        """Draw everything inside as if it had been dipped in paint."""
        before, self._dip = self._dip, colour
        try:
            yield
        finally:
            self._dip = before

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Everything inside belongs to the thing of this name."""
        before, self._name = self._name, name
        try:
            yield
        finally:
            self._name = before

    def _place(self, points: Sequence[Point]) -> list[Point]:
        a, b, c, d, e, f = self._stage
        return [(a * x + b * y + c, d * x + e * y + f) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self._fill(self._place(points), colour)

    def _fill(self, placed: list[Point], colour: Colour) -> None:
        for plane in self._clips:
            placed = _clip(placed, plane)
        if len(placed) > 2:
            self._draw.polygon(placed, fill=self._ink(colour))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, turn: float = 0) -> None:
        """A filled ellipse around (x, y), turned clockwise by `turn` radians."""
        cos, sin = math.cos(turn), math.sin(turn)
        a, b, c, d, e, f = self._stage
        px, qx, mx = (a * cos + b * sin) * rx, (b * cos - a * sin) * ry, a * x + b * y + c
        py, qy, my = (d * cos + e * sin) * rx, (e * cos - d * sin) * ry, d * x + e * y + f
        size = max(rx, ry)
        circle = _CIRCLES[10 if size < 5 else 16 if size < 12 else 28]
        self._fill([(px * p + qx * q + mx, py * p + qy * q + my) for p, q in circle], colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def round_box(self, x0: float, y0: float, x1: float, y1: float, radius: float, colour: Colour) -> None:
        """A filled rectangle with round corners."""
        left, right, top, bottom = x0 + radius, x1 - radius, y0 + radius, y1 - radius
        corners = ((right, bottom), (left, bottom), (left, top), (right, top))
        points = [
            (cx + radius * math.cos(math.pi / 2 * (k + j / 4)), cy + radius * math.sin(math.pi / 2 * (k + j / 4)))
            for k, (cx, cy) in enumerate(corners)
            for j in range(5)
        ]
        self.polygon(points, colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A thick line with round ends and joints."""
        half = width / 2
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            nx, ny = -(y1 - y0) / length * half, (x1 - x0) / length * half
            self.polygon([(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)], colour)
        if width > 2:
            for x, y in points:
                self.ellipse(x, y, half, half, colour)


def _clip(points: list[Point], plane: tuple[float, float, float]) -> list[Point]:
    """Sutherland-Hodgman: the part of a polygon in a half-plane."""
    a, b, c = plane
    kept: list[Point] = []
    for k, (x, y) in enumerate(points):
        px, py = points[k - 1]
        here, there = a * x + b * y + c, a * px + b * py + c
        if (here >= 0) != (there >= 0):
            share = there / (there - here)
            kept.append((px + (x - px) * share, py + (y - py) * share))
        if here >= 0:
            kept.append((x, y))
    return kept


class Picture(Board):
    """The board that makes a frame; starts from a picture drawn earlier, or from nothing."""

    def __init__(self, start: Image.Image | None = None) -> None:
        size = (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING)
        super().__init__(Image.new("RGB", size) if start is None else start.copy(), OVERSAMPLING)

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The frame, uint8 of shape (240, 320, 3)."""
        return np.asarray(self.image.reduce(OVERSAMPLING))


class MaskBoard(Board):
    """The board that makes the truth: every pixel holds the number of the named thing that is seen there."""

    def __init__(self) -> None:
        super().__init__(Image.new("L", (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING)), OVERSAMPLING)
        self._numbers: dict[str, int] = {"": 0}

    def _ink(self, colour: Colour) -> int:
        return self._numbers.setdefault(self._name, len(self._numbers))

    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """The visible pixels of every named thing that is seen at all, bool of shape (240, 320)."""
        seen = np.asarray(self.image)[::OVERSAMPLING, ::OVERSAMPLING]
        found = {name: seen == number for name, number in self._numbers.items() if number}
        return {name: mask for name, mask in sorted(found.items()) if mask.any()}
