"""Labels of the product sample's packs: brand, line of the name, type, time of use and size, each in a row of its own.

The size is the largest print, so that a model with a few dozen visual tokens can read it; brand and the line of the
name are small, as on real packs.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from skincare.sample.marks import INK, Box, Colour, mark_mask

PAPER: Final[Colour] = (252, 251, 246)
# Rows of the label, as (top, bottom) relative to its height.
_ROWS: Final[dict[str, tuple[float, float]]] = {
    "brand": (0.02, 0.12),
    "line": (0.12, 0.19),
    "mark": (0.2, 0.52),
    "type": (0.53, 0.65),
    "use_time": (0.65, 0.73),
    "size": (0.74, 0.98),
}
_MARK_WIDTH: Final = 0.6
# The unit is printed smaller than the number.
_UNIT_SHARE: Final = 0.5
_UNIT_GAP: Final = 0.06
_TEXT_WIDTH: Final = 0.94

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class FullPrint:
    """The print of a full label; an empty field is not printed. size: a number directly followed by its unit."""

    brand: str = ""
    line: str = ""
    type: str = ""
    use_time: str = ""
    size: str = ""


@dataclass(frozen=True)
class LabelStyle:
    """How a label is printed; shape: `band`, `oval` (rounded corners) or `bare` (no paper)."""

    shape: str
    mark: str
    text_ink: Colour
    mark_ink: Colour


def paint_full_label(pack: Image.Image, area: Box, style: LabelStyle, printed: FullPrint) -> None:
    """Paint the label on the pack; area: its box relative to the pack."""
    width, height = pack.size
    box = (area[0] * width, area[1] * height, area[2] * width, area[3] * height)
    pen = ImageDraw.Draw(pack)
    _paint_paper(pen, box, style.shape, width)
    x0, y0, x1, y1 = box
    top, bottom = (y0 + share * (y1 - y0) for share in _ROWS["mark"])
    side = max(8, round(min(bottom - top, (x1 - x0) * _MARK_WIDTH)))
    pack.paste(style.mark_ink, (round((x0 + x1 - side) / 2), round(top)), mark_mask(style.mark, side))
    for row in ("brand", "line", "type", "use_time"):
        _print_row(pen, box, row, getattr(printed, row), style.text_ink)
    _print_size(pen, box, printed.size, style.text_ink)


def _paint_paper(pen: ImageDraw.ImageDraw, box: Box, shape: str, width: int) -> None:
    x0, y0, x1, y1 = box
    rule = max(1, round((y1 - y0) * 0.015))
    if shape == "band":
        pen.rectangle((0, y0, width, y1), fill=PAPER)
        for y in (y0, y1):
            pen.line((0, y, width, y), fill=INK, width=rule)
    elif shape == "oval":
        pen.rounded_rectangle(box, min(x1 - x0, y1 - y0) * 0.12, fill=PAPER, outline=INK, width=rule)


def text_boxes(box: Box, printed: FullPrint) -> dict[str, Box]:
    """Return the box that each printed row's text covers, for a label in `box` (pixels)."""
    x0, y0, x1, y1 = box
    found = {}
    for row, (top, bottom) in _ROWS.items():
        text = "" if row == "mark" else getattr(printed, row)
        if text:
            half = (_size_print(box, text).width if row == "size" else _row_font(box, row, text).getlength(text)) / 2
            centre = (x0 + x1) / 2
            found[row] = (centre - half, y0 + top * (y1 - y0), centre + half, y0 + bottom * (y1 - y0))
    return found


def _print_row(pen: ImageDraw.ImageDraw, box: Box, row: str, text: str, ink: Colour) -> None:
    x0, y0, x1, y1 = box
    middle = y0 + sum(_ROWS[row]) / 2 * (y1 - y0)
    pen.text(((x0 + x1) / 2, middle), text, ink, _row_font(box, row, text), anchor="mm")


def _row_font(box: Box, row: str, text: str) -> Font:
    """Return the largest font with which the text fits its row."""
    x0, y0, x1, y1 = box
    size_px = (_ROWS[row][1] - _ROWS[row][0]) * (y1 - y0) * 1.25
    return _font(int(min(size_px, size_px * (x1 - x0) * _TEXT_WIDTH / max(1.0, _length(text, size_px)))))


class _SizePrint(NamedTuple):
    """A size's number and unit, the font's size and the widths in pixels."""

    number: str
    unit: str
    font_px: float
    number_px: float
    width: float


def _size_print(box: Box, size: str) -> _SizePrint:
    """Return the largest print of a size that fits its row, with the unit at half the number's size."""
    x0, y0, x1, y1 = box
    number = size.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = size[len(number) :].strip()
    # Digits are about 0.72 of the font's size high.
    wanted = (_ROWS["size"][1] - _ROWS["size"][0]) * (y1 - y0) / 0.74
    widest = _length(number, 100) + _length(unit, 100 * _UNIT_SHARE) + 100 * _UNIT_GAP
    font_px = min(wanted, 100 * (x1 - x0) * _TEXT_WIDTH / widest)
    number_px = _length(number, font_px)
    width = number_px + font_px * _UNIT_GAP + _length(unit, font_px * _UNIT_SHARE)
    return _SizePrint(number, unit, font_px, number_px, width)


def _print_size(pen: ImageDraw.ImageDraw, box: Box, size: str, ink: Colour) -> None:
    """Print the number as large as the row allows, and its unit smaller on the same base line."""
    if not size:
        return
    x0, y0, x1, y1 = box
    found = _size_print(box, size)
    left = (x0 + x1 - found.width) / 2
    base = y0 + sum(_ROWS["size"]) / 2 * (y1 - y0) + found.font_px * 0.36
    pen.text((left, base), found.number, ink, _font(round(found.font_px)), anchor="ls")
    unit_left = left + found.number_px + found.font_px * _UNIT_GAP
    pen.text((unit_left, base), found.unit, ink, _font(round(found.font_px * _UNIT_SHARE)), anchor="ls")


def _length(text: str, size_px: float) -> float:
    return _font(round(size_px)).getlength(text)


def _font(size_px: int) -> Font:
    return _font_of(max(5, size_px))


@cache
def _font_of(size_px: int) -> Font:
    return ImageFont.load_default(size_px)
