"""A second pass of the OCR over images with little text: when it runs, and how its lines join those of the first.

Print on a small pack in a large image, or white on a pale pack, escapes the detector at the scale of the image. It is
found at the scale of the pack. Lines that both passes read are kept once.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from skincare.text_reading import line_boxes
from skincare.text_reading.line_boxes import Corners

FoundLine = tuple[str, float, Corners]
"""Text (may be empty), confidence, and the box clockwise from the top left of the text."""

# 44 of 192 real photos have fewer letters and digits; docs/products.md states what the second pass adds.
MIN_LETTERS: Final = 40
# A lesser enlargement of the pack finds nothing new.
MIN_ENLARGEMENT: Final = 1.25
# Share of the smaller box from which two boxes hold the same line.
_MIN_OVERLAP: Final = 0.3
# A reading replaces that of the first pass if its expected number of right letters is larger by this much.
_MIN_GAIN: Final = 0.3


def is_sparse(lines: Sequence[FoundLine], min_confidence: float) -> bool:
    """Return whether the lines of at least a confidence hold little text."""
    n_letters = sum(
        character.isalnum() for text, confidence, _ in lines if confidence >= min_confidence for character in text
    )
    return n_letters < MIN_LETTERS


def merged(first: Sequence[FoundLine], second: Sequence[FoundLine], min_confidence: float) -> list[FoundLine]:
    """Return the lines of the first pass with those of the second that are new or read better, the largest first."""
    kept = [line for line in first if line[1] >= min_confidence]
    rest = [line for line in first if line[1] < min_confidence]
    for line in second:
        if line[1] < min_confidence:
            continue
        same = [one for one in kept if _overlap(one[2], line[2]) > _MIN_OVERLAP]
        is_better = line[1] >= min((one[1] for one in same), default=0.0)
        if not same or (is_better and _letters(line) > sum(map(_letters, same)) + _MIN_GAIN):
            kept = [one for one in kept if not any(one is other for other in same)] + [line]
    kept += [line for line in rest if all(_overlap(line[2], one[2]) <= _MIN_OVERLAP for one in kept)]
    return sorted(kept, key=lambda line: line_boxes.height_px(line[2]), reverse=True)


def _letters(line: FoundLine) -> float:
    """Return the expected number of characters that are right."""
    return line[1] * len(line[0])


def _overlap(one: Corners, other: Corners) -> float:
    """Return the common area of the upright rectangles around two boxes, as a share of the smaller rectangle."""
    (left, top), (right, bottom) = _extent(one)
    (its_left, its_top), (its_right, its_bottom) = _extent(other)
    width, height = min(right, its_right) - max(left, its_left), min(bottom, its_bottom) - max(top, its_top)
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((right - left) * (bottom - top), (its_right - its_left) * (its_bottom - its_top))
    return float(width * height / smaller)


def _extent(corners: Corners) -> npt.NDArray[np.float32]:
    return np.array([corners.min(axis=0), corners.max(axis=0)])
