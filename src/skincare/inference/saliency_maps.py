"""Maps of what speaks for an image's true label (positive) and against it (negative): their overlap with a box, and
their overlay on the image.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

Method = Literal["gradient", "lens"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)

# (rows, columns) of an image's visual tokens.
Map = npt.NDArray[np.float64]

# left, top, right, bottom as fractions of the image.
BoxShares = tuple[float, float, float, float]

_FOR: Final = (0, 114, 178)
_AGAINST: Final = (213, 94, 0)
_STRONGEST: Final = 0.75


@dataclass(frozen=True)
class Saliency:
    """One image: the contrast in logits, and a map per method."""

    contrast: float
    maps: dict[Method, Map]


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


def overlay(image: Image.Image, found: Map, side_px: int = 320) -> Image.Image:
    """Return the image in grey, blue where the map is positive and orange where it is negative."""
    grey = image.convert("L").convert("RGB")
    grey.thumbnail((side_px, side_px))
    strength = found / max(float(np.abs(found).max()), 1e-12)
    smooth = np.asarray(_resized(strength, grey.size))[..., None]
    colour: Any = np.where(smooth > 0, np.array(_FOR), np.array(_AGAINST))
    depth = _STRONGEST * np.clip(np.abs(smooth), 0, 1)
    return Image.fromarray((np.asarray(grey) * (1 - depth) + colour * depth).round().astype(np.uint8))


def _resized(values: Map, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
