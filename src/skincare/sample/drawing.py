"""Drawn packaging: description and image of a product of the sample shop.

A `Packaging` defines the pack (container, colours, label, mark), a `View` one photo of it (background, angle, size,
light). `describe` returns a sentence, `draw` a square image. Both are deterministic functions of their arguments.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from skincare.sample.containers import CONTAINERS, Part
from skincare.sample.full_labels import PAPER, FullPrint, LabelStyle, paint_full_label
from skincare.sample.marks import INK, MARKS, Box, Colour, mark_mask

BODY_COLOURS: Final[dict[str, Colour]] = {
    "white": (240, 239, 234),
    "black": (52, 52, 58),
    "amber": (176, 100, 34),
    "green": (92, 148, 98),
    "blue": (76, 122, 186),
    "pink": (232, 158, 174),
    "purple": (132, 96, 160),
    "yellow": (240, 204, 84),
}
CAP_COLOURS: Final[dict[str, Colour]] = {
    "white": (232, 232, 230),
    "black": (40, 40, 44),
    "gold": (205, 166, 82),
    "silver": (172, 180, 188),
    "wooden": (152, 108, 66),
}
LABELS: Final = ("band", "oval", "bare")
BACKGROUNDS: Final = ("white", "pale", "colour", "gradient", "table")

_PALE: Final[tuple[Colour, ...]] = ((246, 240, 230), (232, 240, 244), (244, 232, 236), (236, 242, 232))
_STRONG: Final[tuple[Colour, ...]] = (
    (214, 186, 160),
    (164, 192, 200),
    (206, 170, 178),
    (176, 194, 164),
    (196, 190, 210),
)


@dataclass(frozen=True)
class Packaging:
    """A pack; each field is a key of the vocabularies above."""

    container: str
    body_colour: str
    cap_colour: str
    label: str
    mark: str


@dataclass(frozen=True)
class View:
    """One photo of a pack: angle in degrees, sizes relative to the image's side, light as a factor."""

    background: str = "white"
    tint: int = 0
    angle_degrees: float = 0.0
    size: float = 0.84
    shift_x: float = 0.0
    shift_y: float = 0.0
    light: float = 1.0
    has_text: bool = True


class Drawing(NamedTuple):
    """A square RGB image and its ground-truth mask ("L", same size): 255 inside the product, else 0."""

    image: Image.Image
    mask: Image.Image

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return the product's box (left, top, right, bottom) in pixels."""
        found = self.mask.getbbox()
        assert found is not None
        return found


def random_packaging(rng: random.Random) -> Packaging:
    """Return a pack with uniformly drawn fields."""
    return Packaging(
        container=rng.choice(list(CONTAINERS)),
        body_colour=rng.choice(list(BODY_COLOURS)),
        cap_colour=rng.choice(list(CAP_COLOURS)),
        label=rng.choice(LABELS),
        mark=rng.choice(list(MARKS)),
    )


def random_view(rng: random.Random) -> View:
    """Return a random view, as of a shop's further photos."""
    return View(
        background=rng.choice(BACKGROUNDS),
        tint=rng.randrange(100),
        angle_degrees=rng.uniform(-14, 14),
        size=rng.uniform(0.66, 0.9),
        shift_x=rng.uniform(-0.06, 0.06),
        shift_y=rng.uniform(-0.05, 0.05),
        light=rng.uniform(0.86, 1.08),
        has_text=rng.random() < 0.8,
    )


def describe(packaging: Packaging) -> str:
    """Return one sentence of a fixed grammar: `a white jar with a gold top and a leaf on an oval label`."""
    where = "the bare front" if packaging.label == "bare" else f"{_a(packaging.label)} label"
    return (
        f"{_a(packaging.body_colour)} {packaging.container} with {_a(packaging.cap_colour)} top "
        f"and {_a(packaging.mark)} on {where}"
    )


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def draw(packaging: Packaging, view: View, side_px: int, *printed: str, full: FullPrint | None = None) -> Drawing:
    """Draw a photo of a pack, `side_px` x `side_px`.

    printed: lines on the label, the brand first; full: the print of a full label, instead of these lines.
    """
    if not view.has_text:
        printed, full = (), FullPrint() if full else None
    pack = _draw_pack(packaging, round(side_px * view.size), printed, full)
    pack = pack.rotate(view.angle_degrees, Image.Resampling.BICUBIC, expand=True)
    left = round((side_px - pack.width) / 2 + view.shift_x * side_px)
    top = round((side_px - pack.height) / 2 + view.shift_y * side_px)
    canvas = _draw_background(view, side_px)
    _cast_shadow(canvas, pack, left, top)
    canvas.paste(pack, (left, top), pack)
    if view.light != 1.0:
        canvas = canvas.point([min(255, round(value * view.light)) for value in range(256)] * 3)
    mask = Image.new("L", canvas.size)
    mask.paste(pack.getchannel("A").point(lambda alpha: 255 * (alpha > 127)), (left, top))
    return Drawing(canvas, mask)


def _draw_pack(packaging: Packaging, extent_px: int, printed: Sequence[str], full: FullPrint | None) -> Image.Image:
    """Draw the upright pack on a transparent background; its longer side is `extent_px`."""
    container = CONTAINERS[packaging.container]
    width = round(extent_px * min(1.0, container.aspect))
    height = round(extent_px * min(1.0, 1 / container.aspect))
    colours = {"body": BODY_COLOURS[packaging.body_colour], "cap": CAP_COLOURS[packaging.cap_colour]}
    pack = Image.new("RGBA", (width, height))
    for part in container.parts:
        mask = _part_mask(part, width, height)
        x0, x1 = round(part.box[0] * width), round(part.box[2] * width)
        pack.paste(_shaded(colours[part.role], width, height, x0, x1), (0, 0), mask)
    body = pack.getchannel("A")
    if full:
        paint_full_label(pack, container.label, _label_style(packaging), full)
    else:
        _draw_label(pack, packaging, container.label, printed)
    pack.putalpha(body)
    return pack


def _part_mask(part: Part, width: int, height: int) -> Image.Image:
    """Return an anti-aliased mask, drawn at twice the size."""
    mask = Image.new("L", (width * 2, height * 2))
    pen = ImageDraw.Draw(mask)
    x0, y0, x1, y1 = (round(v * s * 2) for v, s in zip(part.box, (width, height) * 2, strict=True))
    x1, y1 = x1 - 1, y1 - 1
    if part.shape == "rect":
        pen.rounded_rectangle((x0, y0, x1, y1), part.roundness * min(width, height) * 2, fill=255)
    elif part.shape == "ellipse":
        pen.ellipse((x0, y0, x1, y1), fill=255)
    elif part.shape == "taper":
        inset = (x1 - x0) * 0.14
        crimp = (y1 - y0) * 0.07
        pen.polygon(
            [(x0, y0), (x1, y0), (x1, y0 + crimp), (x1 - inset, y1), (x0 + inset, y1), (x0, y0 + crimp)], fill=255
        )
    elif part.shape == "arch":
        pen.rounded_rectangle((x0, y0, x1, y1), (x1 - x0) * 0.42, fill=255, corners=(True, True, False, False))
    else:
        pen.polygon(_zigzag(x0, y0, x1, y1), fill=255)
    return mask.reduce(2)


def _zigzag(x0: int, y0: int, x1: int, y1: int) -> list[tuple[float, float]]:
    n_teeth = 14
    step, depth = (x1 - x0) / n_teeth, (y1 - y0) * 0.02
    top = [(x0 + i * step, y0 + depth * (i % 2)) for i in range(n_teeth + 1)]
    bottom = [(x0 + i * step, y1 - depth * (i % 2)) for i in range(n_teeth, -1, -1)]
    return top + bottom


def _shaded(colour: Colour, width: int, height: int, x0: int, x1: int) -> Image.Image:
    """Return the colour shaded as a cylinder between x0 and x1: dark edges, a highlight on the left."""
    position = np.clip((np.arange(width) - x0) / max(1, x1 - x0), 0, 1)
    shade = 0.72 + 0.3 * np.sin(np.pi * position) ** 0.7
    gloss = 70 * np.exp(-(((position - 0.24) / 0.06) ** 2))
    row = np.clip(np.outer(shade, colour) + gloss[:, None], 0, 255).astype(np.uint8)
    return Image.fromarray(row[None]).resize((width, height), Image.Resampling.NEAREST)


def _draw_label(pack: Image.Image, packaging: Packaging, area: Box, printed: Sequence[str]) -> None:
    width, height = pack.size
    x0, y0, x1, y1 = area[0] * width, area[1] * height, area[2] * width, area[3] * height
    pen = ImageDraw.Draw(pack)
    if packaging.label == "band":
        pen.rectangle((0, y0, width, y1), fill=PAPER)
        for y in (y0 + (y1 - y0) * 0.04, y1 - (y1 - y0) * 0.04):
            pen.line((0, y, width, y), fill=INK, width=max(1, round(height * 0.008)))
    elif packaging.label == "oval":
        pen.ellipse((x0, y0, x1, y1), fill=PAPER, outline=INK, width=max(1, round(height * 0.008)))
    style = _label_style(packaging)
    # A single line leaves more room for the mark.
    mark_share, text_top = (0.64, 0.76) if len(printed) < 2 else (0.52, 0.66)
    side = min((x1 - x0) * 0.84, (y1 - y0) * mark_share)
    mark = mark_mask(packaging.mark, max(8, round(side)))
    pack.paste(style.mark_ink, (round((x0 + x1 - mark.width) / 2), round(y0 + (y1 - y0) * 0.1)), mark)
    _print_lines(pen, (x0, y0, x1, y1), text_top, printed, style.text_ink, is_oval=packaging.label == "oval")


def _label_style(packaging: Packaging) -> LabelStyle:
    is_bare = packaging.label == "bare"
    text_ink = PAPER if is_bare and sum(BODY_COLOURS[packaging.body_colour]) < 3 * 150 else INK
    mark_ink = text_ink if is_bare else MARKS[packaging.mark].ink
    return LabelStyle(packaging.label, packaging.mark, text_ink, mark_ink)


def _print_lines(
    pen: ImageDraw.ImageDraw, label: Box, top: float, printed: Sequence[str], ink: Colour, *, is_oval: bool
) -> None:  # fmt: skip
    """Print the lines within the label, starting at `top` (relative to the label's height)."""
    x0, y0, x1, y1 = label
    # Half a line stays free below a single line.
    size = round((y1 - y0) * (0.94 - top) / max(1.5, len(printed)))
    if size < 5:
        return
    for i, text in enumerate(printed):
        y = y0 + (y1 - y0) * top + i * size
        half_chord = math.sqrt(max(0.04, 1 - (2 * (y + size - y0) / (y1 - y0) - 1) ** 2)) if is_oval else 1.0
        font = _fitting_font(pen, text, size, (x1 - x0) * 0.94 * half_chord)
        pen.text(((x0 + x1) / 2, y), text, ink, font, anchor="ma")


def _fitting_font(
    pen: ImageDraw.ImageDraw, text: str, size_px: int, width_px: float
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font at `size_px`, or smaller if the text would be wider than `width_px`."""
    return _font(max(5, min(size_px, int(size_px * width_px / max(1.0, pen.textlength(text, _font(size_px)))))))


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _draw_background(view: View, side_px: int) -> Image.Image:
    if view.background == "white":
        return Image.new("RGB", (side_px, side_px), (255, 255, 255))
    palette = _STRONG if view.background in ("colour", "table") else _PALE
    colour = palette[view.tint % len(palette)]
    if view.background in ("pale", "colour"):
        return Image.new("RGB", (side_px, side_px), colour)
    if view.background == "gradient":
        return _vertical_gradient((255, 255, 255), palette[(view.tint + 1) % len(palette)], side_px)
    canvas = _vertical_gradient(colour, (250, 247, 242), side_px)
    ImageDraw.Draw(canvas).rectangle((0, round(side_px * 0.74), side_px, side_px), fill=_darker(colour, 0.86))
    return canvas


def _vertical_gradient(top: Colour, bottom: Colour, side_px: int) -> Image.Image:
    share = np.linspace(0, 1, side_px)[:, None]
    column = (np.array(top) * (1 - share) + np.array(bottom) * share).astype(np.uint8)
    return Image.fromarray(column[:, None]).resize((side_px, side_px), Image.Resampling.NEAREST)


def _darker(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return round(red * factor), round(green * factor), round(blue * factor)


def _cast_shadow(canvas: Image.Image, pack: Image.Image, left: int, top: int) -> None:
    """Draw a soft shadow below and right of the pack, computed at low resolution for speed."""
    side = canvas.width
    small = 48
    mask = Image.new("L", (small, small))
    scale = small / side
    alpha = pack.getchannel("A").resize((max(1, round(pack.width * scale)), max(1, round(pack.height * scale))))
    mask.paste(alpha, (round(left * scale) + 1, round(top * scale) + 1))
    mask = mask.filter(ImageFilter.GaussianBlur(1.5)).point(lambda value: round(value * 0.3))
    canvas.paste((60, 56, 60), (0, 0), mask.resize((side, side), Image.Resampling.BILINEAR))
