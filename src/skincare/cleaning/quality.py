"""Quality metrics of an image: sharpness and brightness of its content, and the sharpness of the reference experiment.

The variance of the Laplacian depends on scale, on how much white surrounds the pack and on contrast: one texture at
200, 400, 800 and 1600 px scores 330, 71, 8 and 2.4, and a sharp pale bottle on white scores 2.6. Cut to the content,
reduced to one size and divided by the strength of its edges, a threshold means the same for every image.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from skincare import images
from skincare.images import Pixels

# The published threshold of the reference experiment.
MIN_SHARPNESS: Final = 60.0
# The model's input is at most 308 px on a side; this is one size above it.
_CONTENT_SIDE_PX: Final = 384
# In grey levels, and as a share of the border's pixels: a soft shadow may leave the frame.
_BACKGROUND_TOLERANCE: Final = 14
PLAIN_BORDER_SHARE: Final = 0.8
# Blur as a share of the content's longer side. For 160 drawn packs, compressed on their own canvas and on a larger one,
# the thumbnails of 99 % match; without blur 66 %, with half of it 94 %.
_EDGE_BLUR_SHARE: Final = 0.02
# Number of averaged rows of a strip along a side; more do not improve the result.
_EDGE_ROWS: Final = 5
# Chosen on 192 real product photos, all visibly sharp, and on blurred versions of them, so that the published
# threshold of 60 remains valid: it keeps all 192 and rejects 191 of the versions blurred by 2.5 px (of 384). The plain
# variance at the same threshold rejects 9 of the sharp ones.
_USUAL_SQUARED_GRADIENT: Final = 3600.0
# Prevents the noise of an empty image from counting as edges.
_SQUARED_GRADIENT_FLOOR: Final = 1000.0

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sharpness:
    """Variances of the Laplacian in squared grey levels (0 to 255).

    content: of the content at one size, normalised by the strength of its edges; used by the check `blurred`.
    plain: of the whole frame at its own size, the metric of the reference experiment.
    """

    content: float
    plain: float


@dataclass(frozen=True)
class Tones:
    """Brightness, entropy and colour of the content.

    brightest, darkest: the grey levels that 1 % of it exceeds and falls below; entropy: of its grey levels, in bits;
    colour: the difference of the strongest and the weakest colour that 5 % of it exceeds.
    """

    brightest: float
    darkest: float
    entropy: float
    colour: float


def to_grey(pixels: Pixels) -> Pixels:
    """Return (H, W): the luma of (H, W, 3)."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]


def content_grey(grey: Pixels, box: Box) -> Pixels:
    """Return the content of a grey image, reduced to one size and never enlarged.

    Enlarging adds no detail, so every small sharp image would count as blurred.
    """
    left, top, right, bottom = box
    # Averaging whole blocks first takes a third of the time and preserves sharpness.
    content = images.reduced(grey[top:bottom, left:right], _CONTENT_SIDE_PX)
    scale = max(content.shape) / _CONTENT_SIDE_PX
    if scale <= 1:
        return content
    # Rows are contiguous in memory, columns are not.
    lying = cv2.transpose(_box_resampled(content, scale))
    return cv2.transpose(_box_resampled(lying, scale))  # type: ignore[arg-type,return-value]


def _box_resampled(grey: Pixels, scale: float) -> Pixels:
    """Return an image with fewer rows, each the mean of the one or two rows with centres in it; `scale` is below 2.

    Fractional weights would blur, most of all for a `scale` near 1, so sharpness would depend on the size.
    """
    height = max(1, round(len(grey) / scale))
    ends = (np.arange(height + 1) * (len(grey) / height) + 0.5).astype(np.intp)
    return cv2.addWeighted(grey[ends[:-1]], 0.5, grey[ends[1:] - 1], 0.5, 0)  # type: ignore[return-value]


def sharpness(grey: Pixels, content: Pixels) -> Sharpness:
    """Return the sharpness of a grey image and its content from `content_grey`."""
    contrast = _USUAL_SQUARED_GRADIENT / (_squared_gradient(content) + _SQUARED_GRADIENT_FLOOR)
    return Sharpness(contrast * _laplacian_variance(content), _laplacian_variance(grey))


def tones(content: Pixels, colours: npt.NDArray[np.uint8]) -> Tones:
    """Return the tones of the content from its grey levels and its colours reduced to (H, W, 3)."""
    counts, colourful = _histogram(content), _histogram(_spread(colours))
    shares = counts[counts > 0] / content.size
    return Tones(
        brightest=_level(counts, 0.99),
        darkest=float(np.searchsorted(np.cumsum(counts) / content.size, 0.01, side="right")),
        entropy=float(-(shares * np.log2(shares)).sum()) + 0.0,
        colour=_level(colourful, 0.95),
    )


def _histogram(grey: Pixels) -> npt.NDArray[np.float64]:
    """Return the number of pixels at each of 256 levels."""
    return cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.float64)


def _level(counts: npt.NDArray[np.float64], share: float) -> float:
    """Return the lowest level that at least this share of the pixels does not exceed."""
    below = np.cumsum(counts)
    return float(np.searchsorted(below, share * below[-1]))


def content_box(pixels: Pixels, small: Pixels) -> Box:
    """Return the content box (left, top, right, bottom) on a plain background; the frame if there is none.

    The background is the colour that the border of the image has in common; an image without a plain border, such
    as a photo in a bathroom, is content as a whole. The box is located in `small`, the reduced image, and refined in
    the image itself, so that it is the same on any canvas.
    """
    (height, width), (small_height, small_width) = pixels.shape[:2], small.shape[:2]
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    background = np.median(border, axis=0).round()
    frame = 0, 0, width, height
    if cv2.countNonZero(_standing_out(border[None], background)) > (1 - PLAIN_BORDER_SHARE) * len(border):
        return frame
    # Opening removes compression artefacts, which would enlarge the box.
    standing_out = cv2.morphologyEx(_standing_out(small, background), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    found = _extent(standing_out)  # type: ignore[arg-type]
    if not found:
        return frame
    across, down = width / small_width, height / small_height
    box = round(found[0] * across), round(found[1] * down), round(found[2] * across), round(found[3] * down)
    # An odd number of pixels: wide enough to suppress compression ringing around an edge.
    blur = 2 * round(_EDGE_BLUR_SHARE / 2 * max((found[2] - found[0]) * across, (found[3] - found[1]) * down)) + 1
    reach = blur // 2 + 2 * math.ceil(max(across, down))
    refined = _refined(pixels, box, background, blur, reach)
    # Parts too thin for the small image, such as a spout, extend the box.
    while any(abs(new - old) == reach for new, old in zip(refined, box, strict=True)):
        box, reach = refined, 2 * reach
        refined = _refined(pixels, box, background, blur, reach)
    is_a_box = refined[0] < refined[2] and refined[1] < refined[3]
    return refined if is_a_box else box


def _standing_out(pixels: Pixels, background: npt.NDArray[Any]) -> Pixels:
    """Return (H, W): 255 where (H, W, 3) differs from the background, else 0."""
    low, high = background - _BACKGROUND_TOLERANCE, background + _BACKGROUND_TOLERANCE
    return cv2.bitwise_not(cv2.inRange(pixels, low, high))  # type: ignore[return-value]


def _extent(mask: Pixels) -> Box | None:
    """Return the bounding box of the non-zero pixels of (H, W); None if there are none."""
    left, top, width, height = cv2.boundingRect(mask)
    return (left, top, left + width, top + height) if width else None


def _refined(pixels: Pixels, box: Box, background: npt.NDArray[Any], blur: int, reach: int) -> Box:
    """Return the box with each side moved, by at most `reach` pixels, to where the blurred image first differs."""
    left, top, right, bottom = box
    height, width = pixels.shape[:2]
    first_x, first_y, end_x, end_y = max(0, left - reach), max(0, top - reach), right + reach, bottom + reach
    # Skipping rows does not need an array copy.
    step = max(1, blur // _EDGE_ROWS)

    def extent(strip: Pixels, kernel: tuple[int, int]) -> Box | None:
        return _extent(_standing_out(cv2.blur(strip, kernel), background))  # type: ignore[arg-type]

    upright, lying = pixels[first_y:end_y:step], pixels[:, first_x:end_x]
    inner_x, inner_y = max(0, right - reach), max(0, bottom - reach)
    at_left = extent(upright[:, first_x : left + reach], (blur, blur // step | 1))
    at_top = extent(lying[first_y : top + reach], (blur, blur))
    at_right = extent(upright[:, inner_x:end_x], (blur, blur // step | 1))
    at_bottom = extent(lying[inner_y:end_y], (blur, blur))
    return (
        first_x + at_left[0] if at_left else left,
        first_y + at_top[1] if at_top else top,
        inner_x + at_right[2] if at_right else min(right, width),
        inner_y + at_bottom[3] if at_bottom else min(bottom, height),
    )


def _spread(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the channel range, maximum minus minimum, of (H, W, 3) as (H, W)."""
    red, green, blue = cv2.split(colours)
    return cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)  # type: ignore[return-value]


def _laplacian_variance(grey: Pixels) -> float:
    # Sixteen bits hold every value exactly; the sum is exact too, and five times faster than in floats.
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    mean = cv2.sumElems(laplacian)[0] / laplacian.size
    return max(0.0, cv2.norm(laplacian, cv2.NORM_L2SQR) / laplacian.size - mean**2)


def _squared_gradient(grey: Pixels) -> float:
    """Return the mean squared length of the Sobel gradient."""
    return sum(cv2.norm(one, cv2.NORM_L2SQR) for one in cv2.spatialGradient(grey)) / grey.size
