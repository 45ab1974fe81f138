"""Lines over steps as one picture: a PNG, or an HTML page that holds its own SVG and needs nothing else.

draw({"run A": [(step, value), ...], ...}, Path("loss.png"))
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sayso.errors import ConfigError

Curves = Mapping[str, Sequence[tuple[float, float]]]
WIDTH_PX, HEIGHT_PX, LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 960, 540, 70, 20, 20, 50
_LEGEND_PX, _TICKS, _SMOOTHED = 18, 6, 50
# Told apart also by those who see colours otherwise (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class _Line:
    points: list[tuple[float, float]]
    colour: str
    width: float


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    text: str
    anchor: str
    """As Pillow has it: left or middle or right, and middle."""
    colour: str = "#333333"


def draw(curves: Curves, path: Path, *, title: str = "loss") -> None:
    """Draw the curves, each faintly as it is and strongly as a moving mean; ConfigError where that cannot be."""
    if path.suffix not in (".png", ".html"):
        raise ConfigError(f"{path}: a plot is a .png or an .html file")
    shapes = _shapes(curves, title)
    try:
        if path.suffix == ".png":
            _png(shapes).save(path)
        else:
            path.write_text(_page(shapes, title))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error}); choose another --plot") from error


def _shapes(curves: Curves, title: str) -> list[_Line | _Text]:
    # What is no number has no place: browsers end a line there, and a mean over it is none either.
    curves = {name: [point for point in curve if math.isfinite(point[1])] for name, curve in curves.items()}
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise ConfigError(f"there is nothing to plot: no run has a figure {title!r} in its metrics")
    axes = _Axes(*_range([x for x, _ in points]), *_range([y for _, y in points]))
    shapes: list[_Line | _Text] = list(axes.shapes(title))
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        shapes += [
            _Line([axes.place(*point) for point in curve], _faint(colour), 1),
            _Line([axes.place(*point) for point in _smooth(curve)], colour, 2),
            _Text(WIDTH_PX - RIGHT_PX - 8, TOP_PX + _LEGEND_PX * (number + 0.7), name, "rm", colour),
        ]
    return shapes


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.0 if high > low else 0.5
    return low - margin, high + margin


def _smooth(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean over a fiftieth of the curve around each point."""
    reach = len(curve) // _SMOOTHED
    return [
        (step, sum(value for _, value in near) / len(near))
        for number, (step, _) in enumerate(curve)
        if (near := curve[max(0, number - reach) : number + reach + 1])
    ]


def _faint(colour: str) -> str:
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{255 - (255 - channel) // 4:02x}" for channel in channels)


@dataclass(frozen=True)
class _Axes:
    left: float
    right: float
    low: float
    high: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the picture, in px."""
        across = (x - self.left) / (self.right - self.left)
        up = (y - self.low) / (self.high - self.low)
        return (
            LEFT_PX + across * (WIDTH_PX - LEFT_PX - RIGHT_PX),
            HEIGHT_PX - BOTTOM_PX - up * (HEIGHT_PX - TOP_PX - BOTTOM_PX),
        )

    def shapes(self, title: str) -> list[_Line | _Text]:
        """Grid and numbers."""
        found: list[_Line | _Text] = []
        for x in _ticks(self.left, self.right):
            place, _ = self.place(x, self.low)
            found.append(_Line([(place, TOP_PX), (place, HEIGHT_PX - BOTTOM_PX)], "#e5e5e5", 1))
            found.append(_Text(place, HEIGHT_PX - BOTTOM_PX + 14, f"{x:g}", "mm"))
        for y in _ticks(self.low, self.high):
            _, place = self.place(self.left, y)
            found.append(_Line([(LEFT_PX, place), (WIDTH_PX - RIGHT_PX, place)], "#e5e5e5", 1))
            found.append(_Text(LEFT_PX - 8, place, f"{y:g}", "rm"))
        found.append(_Text((LEFT_PX + WIDTH_PX) / 2, HEIGHT_PX - 12, f"{title} over steps", "mm"))
        return found


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range, about six."""
    rough = (high - low) / _TICKS
    power = math.pow(10, math.floor(math.log10(rough)))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _png(shapes: Sequence[_Line | _Text]) -> Image.Image:
    picture = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for shape in shapes:
        if isinstance(shape, _Line):
            pen.line(shape.points, fill=shape.colour, width=round(shape.width))
        else:
            pen.text((shape.x, shape.y), shape.text, fill=shape.colour, anchor=shape.anchor, font=font)
    return picture


def _page(shapes: Sequence[_Line | _Text], title: str) -> str:
    body = "\n".join(map(_svg, shapes))
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>\n"
        f'<svg viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" style="max-width:100%;font:13px sans-serif">\n{body}\n</svg>\n'
    )


def _svg(shape: _Line | _Text) -> str:
    if isinstance(shape, _Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        return f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="{shape.width}"/>'
    anchor = {"l": "start", "m": "middle", "r": "end"}[shape.anchor[0]]
    place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{anchor}" dominant-baseline="middle"'
    return f'<text {place} fill="{shape.colour}">{html.escape(shape.text)}</text>'
