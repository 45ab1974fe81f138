"""The rooms that videos are made in: what hangs on the wall, and the table."""

from functools import lru_cache

from PIL import Image

from demo.canvas import Board, Colour, Picture, darker, lighter, mix
from demo.look import Look
from demo.truth import HEIGHT, WIDTH

TABLE_TOP = 158


def _window(board: Board, wall: Colour) -> None:
    for x in (18, 232):
        board.box(x - 5, 14, x + 75, 112, lighter(wall, 0.7))
        board.box(x, 19, x + 70, 107, (150, 210, 245))
        board.ellipse(x + 22, 46, 16, 7, (240, 248, 255))
        board.ellipse(x + 34, 41, 13, 8, (240, 248, 255))
        board.polygon([(x, 107), (x, 92), (x + 30, 80), (x + 70, 96), (x + 70, 107)], (126, 190, 110))
        board.box(x + 33, 19, x + 37, 107, lighter(wall, 0.7))
        board.box(x, 61, x + 70, 65, lighter(wall, 0.7))


def _tiles(board: Board, wall: Colour) -> None:
    for row in range(6):
        for column in range(-1, 8):
            x, y = column * 46 + (row % 2) * 23, 10 + row * 27
            board.box(x, y, x + 43, y + 24, lighter(wall, 0.3 if (row + column) % 3 else 0.6))


def _shelves(board: Board, wall: Colour) -> None:
    jars: tuple[Colour, ...] = ((196, 96, 80), (96, 150, 170), (220, 180, 90), (130, 160, 110), (150, 120, 170))
    for row, y in enumerate((52, 112)):
        board.box(0, y, WIDTH, y + 6, darker(wall, 0.4))
        for k in range(9):
            x, height = 8 + k * 36, 18 + (k * 7 + row * 5) % 14
            colour = mix(jars[(k + 2 * row) % 5], wall, 0.45)
            board.round_box(x, y - height, x + 22, y, 4, colour)
            board.box(x + 3, y - height - 4, x + 19, y - height + 1, darker(colour, 0.25))


def _stripes(board: Board, wall: Colour) -> None:
    for x in range(0, WIDTH, 40):
        board.box(x, 0, x + 20, HEIGHT, lighter(wall, 0.35))


def _dots(board: Board, wall: Colour) -> None:
    for row in range(6):
        for column in range(10):
            board.ellipse(column * 36 + (row % 2) * 18, 16 + row * 28, 6, 6, lighter(wall, 0.5))


def _pegboard(board: Board, wall: Colour) -> None:
    for x in range(8, WIDTH, 16):
        for y in range(8, 150, 16):
            board.ellipse(x, y, 1.6, 1.6, darker(wall, 0.3))
    shade = darker(wall, 0.35)
    board.line([(36, 30), (36, 92)], 7, shade)
    board.round_box(20, 22, 52, 40, 4, darker(wall, 0.5))
    board.line([(280, 26), (280, 60)], 12, shade)
    board.line([(280, 60), (280, 96)], 4, darker(wall, 0.5))
    board.ellipse(248, 50, 15, 15, shade)
    board.ellipse(248, 50, 8, 8, wall)


_WALLS = {"window": _window, "tiles": _tiles, "shelves": _shelves, "stripes": _stripes, "dots": _dots,
          "pegboard": _pegboard}  # fmt: skip


@lru_cache(maxsize=4)
def room(look: Look) -> Image.Image:
    """The empty room behind the person, drawn once a video."""
    board = Picture()
    board.box(0, 0, WIDTH, HEIGHT, look.wall)
    _WALLS[look.background](board, look.wall)
    return board.image


def draw_table(board: Board, look: Look) -> None:
    """The table in front of the person."""
    board.box(0, TABLE_TOP, WIDTH, HEIGHT, look.table)
    board.box(0, TABLE_TOP, WIDTH, TABLE_TOP + 4, lighter(look.table, 0.35))
    if look.planks:
        for y in (180, 206):
            board.box(0, y, WIDTH, y + 1.5, darker(look.table, 0.2))
    board.box(0, 232, WIDTH, HEIGHT, darker(look.table, 0.3))
