"""Geometry of text lines: boxes from a detector's probability map, content area of an image, crops of lines.

`boxes_from_map` is the postprocessing of differentiable binarisation with rapidocr's settings.
Source: Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", 2020.
"""

import math
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from skincare import images
from skincare.cleaning import quality
from skincare.cleaning.quality import Box
from skincare.images import Pixels
from skincare.text_reading.pack_text import TextLine

Corners = npt.NDArray[np.float32]
"""(4, 2) float32, x and y in pixels of the image, clockwise from the top left of the text."""

# Height over width from which a box holds a line that runs up or down.
UPRIGHT: Final = 1.5
# Thresholds of a pixel and of the mean over a box.
_MIN_PROBABILITY: Final = 0.3
_MIN_SCORE: Final = 0.5
# The detector is trained on shrunken lines; boxes grow by area / perimeter times this ratio.
_GROWTH: Final = 1.6
_MIN_SIDE_PX: Final = 3
# More than any pack has.
_MAX_CANDIDATES: Final = 1000
_SMALL_SIDE_PX: Final = 192
# The detector needs some background around letters, also in thumbnails.
_MARGIN_SHARE: Final = 0.04
_MIN_MARGIN_PX: Final = 8
# Share of a box's height that is trimmed above and below: the detector leaves more space than recognition
# expects. Catalogue words read on 28 real photos: 190 without trimming, 203 with 0.1, no gain with 0.15.
_TRIM: Final = 0.1


def boxes_from_map(probability: npt.NDArray[np.float32]) -> list[Corners]:
    """Return the boxes of text lines in a map (H, W) of the probability that a pixel belongs to one."""
    is_text = cv2.dilate((probability > _MIN_PROBABILITY).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours = cv2.findContours(is_text, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]
    boxes = []
    for contour in contours[:_MAX_CANDIDATES]:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < _MIN_SIDE_PX:
            continue
        if _mean_inside(probability, cv2.boxPoints((centre, (width, height), angle))) < _MIN_SCORE:
            continue
        growth = _GROWTH * width * height / (width + height)
        grown = cv2.boxPoints((centre, (width + growth, height + growth), angle))
        boxes.append(_clockwise(np.clip(grown, 0, probability.shape[::-1]).astype(np.float32)))
    return boxes


def content(pixels: Pixels) -> Box:
    """Return (left, top, right, bottom) of the content on a plain background, with a margin."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = quality.content_box(pixels, images.reduced(pixels, _SMALL_SIDE_PX))
    margin = max(_MIN_MARGIN_PX, round(_MARGIN_SHARE * max(right - left, bottom - top)))
    return max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin)


def crop_line(pixels: Pixels, corners: Corners) -> Pixels:
    """Return the content of a box as an upright rectangle, trimmed above and below the line."""
    corners = _trimmed(corners)
    width, height = (max(1, int(max(pair))) for pair in _sides(corners))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    return cv2.warpPerspective(  # type: ignore[return-value]
        pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def _trimmed(corners: Corners) -> Corners:
    """Return a box without the space on either side of its line."""
    (above, below), (left, right) = _sides(corners)
    is_upright = max(left, right) >= UPRIGHT * max(above, below)
    opposite = corners[[1, 0, 3, 2]] if is_upright else corners[[3, 2, 1, 0]]
    return corners + np.float32(_TRIM) * (opposite - corners)


def height_px(corners: Corners) -> float:
    """Return the shorter side of a box, which is the height of its line for any orientation."""
    return float(min(np.mean(pair) for pair in _sides(corners)))


def text_line(text: str, confidence: float, corners: Corners, width: int, height: int) -> TextLine:
    """Return a line with its box relative to the width and height of the image."""
    box: Any = tuple((round(x / width, 5), round(y / height, 5)) for x, y in corners.tolist())
    line_px = float(np.mean(_sides(corners)[1]))
    return TextLine(text, round(confidence, 4), box, round(line_px / height, 5))


def _sides(corners: Corners) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the lengths along the text (above, below) and across it (left, right)."""
    above, right, below, left = (math.dist(corners[i], corners[(i + 1) % 4]) for i in range(4))
    return (above, below), (left, right)


def _mean_inside(probability: npt.NDArray[np.float32], corners: npt.NDArray[Any]) -> float:
    """Return the mean of the probability map inside a box."""
    height, width = probability.shape
    low = np.clip(np.floor(corners.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, (width - 1, height - 1)).astype(int)
    mask = np.zeros((high - low + 1)[::-1], np.uint8)
    cv2.fillPoly(mask, [(corners - low).astype(np.int32)], 1)
    return float(cv2.mean(probability[low[1] : high[1] + 1, low[0] : high[0] + 1], mask)[0])


def _clockwise(corners: npt.NDArray[np.float32]) -> Corners:
    """Return the corners clockwise from the top left: the upper one of the two leftmost corners."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    left, right = left[np.argsort(left[:, 1], kind="stable")], right[np.argsort(right[:, 1], kind="stable")]
    return np.stack([left[0], right[0], right[1], left[1]])
