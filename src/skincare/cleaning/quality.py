"""How sharp and how bright a picture is: on its content at one size, as we decide, and as the reference measured it.

The variance of the Laplacian depends on scale, on how much white surrounds the pack and on contrast: one texture at
200, 400, 800 and 1600 px scores 330, 71, 8 and 2.4, and a sharp pale bottle on white scores 2.6. Cut to the content,
reduced to one size and divided by the strength of its edges, a limit means the same for every picture.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

# The published limit of the reference.
MIN_SHARPNESS: Final = 60.0
# What the model sees at its largest is 308 px on a side; one size above it, since detail beyond is lost on it.
_CONTENT_SIDE_PX: Final = 384
# In grey levels, and as a share of the border's pixels: a soft shadow may leave the frame.
_BACKGROUND_TOLERANCE: Final = 14
PLAIN_BORDER_SHARE: Final = 0.8
# Of the content's longer side. Of 160 drawn packs, compressed on their own canvas and on a larger one, it has the
# thumbnails of 99 % agree; with none it is 66 %, with half as much 94 %.
_EDGE_BLUR_SHARE: Final = 0.02
# Chosen on 192 real product photos, all sharp to the eye, and blurred copies of them, so that the published limit of
# 60 stays the limit: it keeps all 192 and drops 191 of the copies blurred by 2.5 px (of 384). The plain variance at
# the same limit drops 9 of the sharp ones.
_USUAL_SQUARED_GRADIENT: Final = 3600.0
# Keeps the grain of an empty picture from counting as edges.
_SQUARED_GRADIENT_FLOOR: Final = 1000.0

Box = tuple[int, int, int, int]
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sharpness:
    """Variances of the Laplacian in squared grey levels (0 to 255).

    content: of the content at one size, as if its edges had the usual strength; this decides.
    plain: of the whole frame as it is, the reference's measure.
    """

    content: float
    plain: float


@dataclass(frozen=True)
class Tones:
    """What light and colour there is in the content.

    brightest, darkest: the grey levels that 1 % of it exceeds and falls below; entropy: of its grey levels, in bits;
    colour: the difference of the strongest and the weakest colour that 5 % of it exceeds.
    """

    brightest: float
    darkest: float
    entropy: float
    colour: float


def content_grey(grey: Grey, box: Box) -> Grey:
    """Return the content of a grey picture, reduced to one size; only ever reduced.

    Enlarging adds no detail, and would call every small sharp picture blurred.
    """
    left, top, right, bottom = box
    content = grey[top:bottom, left:right]
    # Whole blocks first, a third of the work; means of blocks keep sharp what is sharp.
    while max(content.shape) >= 2 * _CONTENT_SIDE_PX and min(content.shape) > 1:
        content = _halved(content)
    scale = _CONTENT_SIDE_PX / max(content.shape)
    if scale >= 1:
        return content
    height, width = (max(1, round(side * scale)) for side in content.shape)
    return np.asarray(Image.fromarray(content).resize((width, height), Image.Resampling.BOX))


def sharpness(grey: Grey, content: Grey) -> Sharpness:
    """Measure a grey picture whose content `content_grey` gave."""
    contrast = _USUAL_SQUARED_GRADIENT / (_squared_gradient(content) + _SQUARED_GRADIENT_FLOOR)
    return Sharpness(contrast * _laplacian_variance(content), _laplacian_variance(grey))


def tones(content: Grey, colours: npt.NDArray[np.uint8]) -> Tones:
    """Measure the content: its grey levels, and its colours reduced to (H, W, 3)."""
    counts = cv2.calcHist([content], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    shares = counts[counts > 0] / content.size
    below = np.cumsum(counts) / content.size
    return Tones(
        brightest=float(np.searchsorted(below, 0.99)),
        darkest=float(np.searchsorted(below, 0.01, side="right")),
        entropy=float(-(shares * np.log2(shares)).sum()) + 0.0,
        colour=float(np.percentile(_spread(colours), 95)),
    )


def content_box(image: Image.Image, small: Image.Image) -> Box:
    """Return (left, top, right, bottom) of what stands out from a plain background; the frame where there is none.

    The background is the colour that the border of the picture has in common; a picture without a plain border, such
    as a photo in a bathroom, is content as a whole. `small`, the picture reduced, tells where about the content lies;
    where its sides are is looked up in the picture itself, so that they are the same on any canvas.
    """
    pixels = np.asarray(small)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int16)
    background = np.median(border, axis=0).round()
    frame = 0, 0, image.width, image.height
    if (np.abs(border - background).max(axis=1) <= _BACKGROUND_TOLERANCE).mean() < PLAIN_BORDER_SHARE:
        return frame
    # Opening removes specks of compression, which would stretch the box.
    standing_out = cv2.morphologyEx(_standing_out(pixels, background), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    left, top, width, height = cv2.boundingRect(standing_out)
    if not width:
        return frame
    across, down = image.width / small.width, image.height / small.height
    box = round(left * across), round(top * down), round((left + width) * across), round((top + height) * down)
    # An odd number of pixels: wide enough to drown the rings of compression around an edge.
    blur = 2 * round(_EDGE_BLUR_SHARE / 2 * max(width * across, height * down)) + 1
    reach = blur // 2 + 2 * math.ceil(max(across, down))
    found = _refined(image, box, background, blur, reach)
    # What is too thin to be seen in the small picture, such as a spout, leads further out.
    while any(abs(new - old) == reach for new, old in zip(found, box, strict=True)):
        box, reach = found, 2 * reach
        found = _refined(image, box, background, blur, reach)
    is_a_box = found[0] < found[2] and found[1] < found[3]
    return found if is_a_box else box


def _standing_out(pixels: npt.NDArray[np.uint8], background: npt.NDArray[Any]) -> Grey:
    """Return (H, W): 255 where (H, W, 3) differs from the background, else 0."""
    low, high = background - _BACKGROUND_TOLERANCE, background + _BACKGROUND_TOLERANCE
    return cv2.bitwise_not(cv2.inRange(pixels, low, high))  # type: ignore[return-value]


def _refined(image: Image.Image, box: Box, background: npt.NDArray[Any], blur: int, reach: int) -> Box:
    """Return the box with each side where the blurred picture first stands out, within `reach` pixels of its place."""
    left, top, right, bottom = box
    near = max(0, left - reach), max(0, top - reach), min(image.width, right + reach), min(image.height, bottom + reach)

    def places(strip: Box, axis: int) -> npt.NDArray[np.intp]:
        """Return the columns (axis 0) or rows (axis 1) of a strip in which something stands out."""
        pixels = cv2.blur(np.asarray(image.crop(strip)), (blur, blur))
        return strip[axis] + np.flatnonzero(_standing_out(pixels, background).any(axis=axis))  # type: ignore[arg-type]

    lefts = places((near[0], near[1], min(left + reach, near[2]), near[3]), 0)
    tops = places((near[0], near[1], near[2], min(top + reach, near[3])), 1)
    rights = places((max(right - reach, near[0]), near[1], near[2], near[3]), 0)
    bottoms = places((near[0], max(bottom - reach, near[1]), near[2], near[3]), 1)
    return (
        int(lefts[0]) if lefts.size else left,
        int(tops[0]) if tops.size else top,
        int(rights[-1]) + 1 if rights.size else min(right, image.width),
        int(bottoms[-1]) + 1 if bottoms.size else min(bottom, image.height),
    )


def _halved(grey: Grey) -> Grey:
    """Return the means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = grey.shape[0] // 2, grey.shape[1] // 2
    whole = grey[: 2 * height, : 2 * width]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _spread(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return (H, W): the strongest less the weakest channel of (H, W, 3)."""
    red, green, blue = cv2.split(colours)
    return cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)  # type: ignore[return-value]


def _laplacian_variance(grey: Grey) -> float:
    # Sixteen bits hold every value exactly; the sum is exact too, and five times faster than in floats.
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    mean = cv2.sumElems(laplacian)[0] / laplacian.size
    return max(0.0, cv2.norm(laplacian, cv2.NORM_L2SQR) / laplacian.size - mean**2)


def _squared_gradient(grey: Grey) -> float:
    """Return the mean squared length of the Sobel gradient."""
    directions = (cv2.Sobel(grey, cv2.CV_16S, 1, 0), cv2.Sobel(grey, cv2.CV_16S, 0, 1))
    return sum(cv2.norm(one, cv2.NORM_L2SQR) for one in directions) / grey.size
