"""The symbols on the sample shop's packs (drop, leaf, star ...), drawn as masks of any size."""

import math
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

INK: Final[Colour] = (38, 40, 58)


@cache
def mark_mask(mark: str, side_px: int) -> Image.Image:
    """Return a mark as an anti-aliased mask."""
    scale = 4
    mask = Image.new("L", (side_px * scale, side_px * scale))
    MARKS[mark].draw(_MarkPen(mask))
    return mask.reduce(scale)


class _MarkPen:
    """Drawing primitives in the unit square."""

    def __init__(self, mask: Image.Image) -> None:
        self._pen = ImageDraw.Draw(mask)
        self._side = mask.width

    def disc(self, x: float, y: float, radius: float, fill: int = 255) -> None:
        self.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

    def ellipse(self, box: Box, fill: int = 255) -> None:
        self._pen.ellipse([value * self._side for value in box], fill=fill)

    def polygon(self, points: list[tuple[float, float]], fill: int = 255) -> None:
        self._pen.polygon([(x * self._side, y * self._side) for x, y in points], fill=fill)

    def line(self, points: list[tuple[float, float]], width: float, fill: int = 255) -> None:
        scaled = [(x * self._side, y * self._side) for x, y in points]
        self._pen.line(scaled, fill=fill, width=round(width * self._side), joint="curve")

    def ring(self, x: float, y: float, radius: float, width: float) -> None:
        box = [value * self._side for value in (x - radius, y - radius, x + radius, y + radius)]
        self._pen.ellipse(box, outline=255, width=round(width * self._side))

    def arc(self, box: Box, start: float, end: float, width: float) -> None:
        self._pen.arc([value * self._side for value in box], start, end, fill=255, width=round(width * self._side))


def _circle(n: int, radius: float, turn: float = 0.0) -> list[tuple[float, float]]:
    angles = [2 * math.pi * i / n + turn for i in range(n)]
    return [(0.5 + radius * math.sin(a), 0.5 - radius * math.cos(a)) for a in angles]


def _drop(pen: _MarkPen) -> None:
    pen.polygon([(0.5, 0.0), (0.78, 0.5), (0.22, 0.5)])
    pen.disc(0.5, 0.66, 0.32)


def _leaf(pen: _MarkPen) -> None:
    points = [(i / 20, 0.3 * math.sin(math.pi * i / 20)) for i in range(21)]
    pen.polygon([(x, 0.5 - y) for x, y in points] + [(x, 0.5 + y) for x, y in reversed(points)])
    pen.line([(0.12, 0.5), (0.88, 0.5)], 0.05, fill=0)
    for x in (0.32, 0.52):
        pen.line([(x, 0.5), (x + 0.16, 0.32)], 0.04, fill=0)
        pen.line([(x, 0.5), (x + 0.16, 0.68)], 0.04, fill=0)


def _iris(pen: _MarkPen) -> None:
    pen.ring(0.5, 0.5, 0.46, 0.1)
    pen.disc(0.5, 0.5, 0.2)


def _wave(pen: _MarkPen) -> None:
    for row in (0.2, 0.5, 0.8):
        pen.line([(i / 30, row + 0.1 * math.sin(i / 30 * 4 * math.pi)) for i in range(31)], 0.12)


def _star(pen: _MarkPen) -> None:
    outer, inner = _circle(5, 0.5), _circle(5, 0.2, math.pi / 5)
    pen.polygon([point for pair in zip(outer, inner, strict=True) for point in pair])


def _crystal(pen: _MarkPen) -> None:
    pen.polygon([(0.5, 0), (0.85, 0.36), (0.5, 1), (0.15, 0.36)])
    pen.line([(0.15, 0.36), (0.85, 0.36)], 0.05, fill=0)
    pen.line([(0.5, 0.36), (0.5, 0.95)], 0.05, fill=0)


def _flower(pen: _MarkPen) -> None:
    for x, y in _circle(6, 0.3):
        pen.disc(x, y, 0.19)
    pen.disc(0.5, 0.5, 0.16, fill=0)


def _smile(pen: _MarkPen) -> None:
    pen.disc(0.5, 0.5, 0.48)
    pen.disc(0.33, 0.38, 0.08, fill=0)
    pen.disc(0.67, 0.38, 0.08, fill=0)
    pen.ellipse((0.25, 0.42, 0.75, 0.84), fill=0)
    pen.ellipse((0.2, 0.34, 0.8, 0.74))
    pen.disc(0.33, 0.38, 0.08, fill=0)
    pen.disc(0.67, 0.38, 0.08, fill=0)


def _bubbles(pen: _MarkPen) -> None:
    pen.ring(0.34, 0.62, 0.33, 0.09)
    pen.ring(0.76, 0.34, 0.22, 0.08)
    pen.disc(0.34, 0.12, 0.11)


def _sun(pen: _MarkPen) -> None:
    for x, y in _circle(8, 0.48):
        pen.line([(0.5, 0.5), (x, y)], 0.08)
    pen.disc(0.5, 0.5, 0.34, fill=0)
    pen.disc(0.5, 0.5, 0.26)


def _moon(pen: _MarkPen) -> None:
    pen.disc(0.46, 0.5, 0.46)
    pen.disc(0.68, 0.4, 0.4, fill=0)


def _flake(pen: _MarkPen) -> None:
    for x, y in _circle(6, 0.48):
        pen.line([(0.5, 0.5), (x, y)], 0.09)
        side_x, side_y = 0.5 + (x - 0.5) * 0.6, 0.5 + (y - 0.5) * 0.6
        pen.disc(side_x, side_y, 0.08)


class Mark(NamedTuple):
    """A printed sign and the ink that it is printed with on paper; two signs share each ink."""

    draw: Callable[[_MarkPen], None]
    ink: Colour


MARKS: Final[dict[str, Mark]] = {
    "drop": Mark(_drop, (24, 78, 160)),
    "leaf": Mark(_leaf, (30, 110, 50)),
    "iris": Mark(_iris, (104, 44, 130)),
    "wave": Mark(_wave, (24, 78, 160)),
    "star": Mark(_star, (176, 88, 10)),
    "crystal": Mark(_crystal, (104, 44, 130)),
    "flower": Mark(_flower, (190, 30, 80)),
    "smile": Mark(_smile, (176, 88, 10)),
    "bubble": Mark(_bubbles, (30, 110, 50)),
    "sun": Mark(_sun, (190, 30, 80)),
    "moon": Mark(_moon, INK),
    "flake": Mark(_flake, INK),
}
