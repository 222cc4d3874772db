"""Maps over an image's visual tokens, their overlap with a box, and their overlay on the image.

A saliency map is positive for what speaks for the true label and negative for what speaks against it; an attention map
holds weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Method = Literal["gradient", "lens"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)

# The thirds of the language layers, from the first on, and the rollout through all of them.
LAYER_GROUPS: Final = ("early", "middle", "late")
ROLLOUT: Final = "rollout"

# (rows, columns) of an image's visual tokens.
Map = npt.NDArray[np.float64]

# left, top, right, bottom as fractions of the image.
BoxShares = tuple[float, float, float, float]

_FOR: Final = (0, 114, 178)
_AGAINST: Final = (213, 94, 0)
_ATTENDED: Final = (0, 158, 115)
_STRONGEST: Final = 0.75
_TITLE_PX: Final = 20
_GAP_PX: Final = 6


@dataclass(frozen=True)
class Saliency:
    """One image: the contrast in logits, a map per method, and the attention per group of layers and by rollout.

    The weights of a group add up to the share of the attention that the image receives.
    """

    contrast: float
    maps: dict[Method, Map]
    attention: dict[str, Map]


def coverage(shape: tuple[int, ...], box: BoxShares) -> Map:
    """Return the fraction of each of (rows, columns) cells that a box covers."""
    ends = ((box[1], box[3]), (box[0], box[2]))
    down, across = (
        np.clip(np.minimum(np.arange(1, n + 1), high * n) - np.maximum(np.arange(n), low * n), 0, 1)
        for n, (low, high) in zip(shape, ends, strict=True)
    )
    return np.outer(down, across)


def share_inside(found: Map, inside: Map) -> float:
    """Return the fraction of the positive values that is inside; that of the area if there are none."""
    positive = np.maximum(found, 0)
    return float((positive * inside).sum() / positive.sum()) if positive.sum() > 0 else float(inside.mean())


def points_inside(found: Map, inside: Map) -> bool:
    """Return whether more than half of the cell with the highest value is inside."""
    return bool(inside.flat[int(found.argmax())] > 0.5)


def resized(found: Map, shape: tuple[int, int]) -> Map:
    """Return a map with other numbers of rows and columns, interpolated."""
    values = Image.fromarray(found.astype(np.float32))
    return np.asarray(values.resize(shape[::-1], Image.Resampling.BILINEAR), dtype=np.float64)


def overlay(image: Image.Image, found: Map, side_px: int = 320) -> Image.Image:
    """Return the image in grey, blue where the map is positive and orange where it is negative."""
    return _coloured(image, found, side_px, _FOR, _AGAINST)


def attention_panels(image: Image.Image, maps: Mapping[str, Map], side_px: int = 160) -> Image.Image:
    """Return the image in grey once per map, two panels to a row, green in proportion to the weights of that map."""
    panels = [_coloured(image, found, side_px, _ATTENDED, _ATTENDED) for found in maps.values()]
    width, height = panels[0].width, panels[0].height + _TITLE_PX
    n_rows = -(-len(panels) // 2)
    sheet = Image.new("RGB", (2 * width + _GAP_PX, n_rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (title, panel) in enumerate(zip(maps, panels, strict=True)):
        left, top = (i % 2) * (width + _GAP_PX), (i // 2) * height
        draw.text((left, top + 2), title, fill="black", font_size=_TITLE_PX - 5)
        sheet.paste(panel, (left, top + _TITLE_PX))
    return sheet


def _coloured(
    image: Image.Image, found: Map, side_px: int, positive: tuple[int, ...], negative: tuple[int, ...]
) -> Image.Image:
    """Return the image in grey, coloured in proportion to the map; its largest absolute value is the darkest."""
    grey = image.convert("L").convert("RGB")
    grey.thumbnail((side_px, side_px))
    strength = found / max(float(np.abs(found).max()), 1e-12)
    smooth = resized(strength, (grey.height, grey.width))[..., None]
    colour: Any = np.where(smooth > 0, np.array(positive), np.array(negative))
    depth = _STRONGEST * np.clip(np.abs(smooth), 0, 1)
    return Image.fromarray((np.asarray(grey) * (1 - depth) + colour * depth).round().astype(np.uint8))
