"""An image cut to its product: on white, square and centred, or with the background that it has."""

from typing import Final, Literal

import numpy as np
from PIL import Image

from skincare.cleaning.foreground import Foreground
from skincare.cleaning.quality import Box

BackgroundMode = Literal["white", "as_is"]
# Part of the settings that decide whether an older result still holds.
VERSION: Final = 1
_WHITE: Final = (255, 255, 255)


def crop(image: Image.Image, found: Foreground, margin: float, background: BackgroundMode) -> Image.Image:
    """Return an RGB image cut to its product, with `margin` (a share of its longer side) all around."""
    if background == "as_is":
        return image.crop(_with_margin(found.box, margin, image.size))
    left, top, right, bottom = found.box
    side = round(max(right - left, bottom - top) * (1 + 2 * margin))
    canvas = Image.new("RGB", (side, side), _WHITE)
    place = ((side - (right - left)) // 2, (side - (bottom - top)) // 2)
    canvas.paste(image.crop(found.box), place, Image.fromarray(np.ascontiguousarray(found.alpha)).crop(found.box))
    return canvas


def _with_margin(box: Box, margin: float, size: tuple[int, int]) -> Box:
    """Return the box grown by its margin as far as the image reaches."""
    left, top, right, bottom = box
    extra = round(max(right - left, bottom - top) * margin)
    return max(0, left - extra), max(0, top - extra), min(size[0], right + extra), min(size[1], bottom + extra)
