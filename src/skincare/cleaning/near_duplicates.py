"""Which images look the same: re-encoded, rescaled, or on another canvas.

Pixels decide, on thumbnails of the frame and of its content. A hash cannot: packs of different products on white are
closer to each other than two photos of one product (of 400 drawn bottles the reference's 64-bit difference hash would
drop 297), and plain areas make its bits toss a coin, so that a copy is missed. Where to look is told by the grey means
of 8 x 8 cells: two copies' cannot differ by more than the copies may, so that the search misses none.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.linalg import qr
from scipy.spatial import cKDTree

from skincare.cleaning.quality import Box
from skincare.images import Pixels

THUMBNAIL_SIDE: Final = 64
_CELLS: Final = 8
_CELL_SIDE: Final = THUMBNAIL_SIDE // _CELLS

# In grey levels of the worst of 8 x 8 cells of the thumbnails, so that a changed word on the label weighs as much as a
# changed pack. Of pairs of real photos judged by eye, copies differ by 0 to 2.2 in the frame and 0 to 5.3 in the
# content; different products by 8.3 and more in the frame, where a small pack fills few cells, and by 18 and more in
# the content.
MAX_FRAME_DIFFERENCE: Final = 6.5
MAX_CONTENT_DIFFERENCE: Final = 10.0
# Of the logarithms of width / height: content boxes of copies differ by a pixel or two.
_MAX_ASPECT_DIFFERENCE: Final = 0.04
# An image without contrast has no fingerprint worth the name: all blank pages would be one.
_MIN_CONTRAST: Final = 4.0

# An image is compared with so many at most, those that come first: a placeholder that a shop compresses anew for each
# of 10,000 products would cost 50 million comparisons otherwise.
MAX_CANDIDATES: Final = 200

# For the search alone; they change its speed, not what it finds.
_SAMPLED_IMAGES: Final = 500
_TELLING_CELLS: Final = 8
_BLOCK_IMAGES: Final = 256

Thumbnails = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fingerprint:
    """What images are compared by: their frame and their content, reduced to one size whatever their shape.

    thumbnails: (2, 64, 64, 3) uint8; aspects: width / height of the two.
    """

    thumbnails: npt.NDArray[np.uint8]
    aspects: tuple[float, float]


def thumbnails(frame: Pixels, image: Pixels, box: tuple[float, float, float, float]) -> Thumbnails:
    """Return (2, 64, 64, 3): the frame of an image, from itself reduced, and its content, which lies in `box`.

    The content is taken from a larger `image`, whose pixels `box` is in: blocks that begin elsewhere on another
    canvas would blur it otherwise, and one copy in two with more white around it would be missed.
    """
    left, top, right, bottom = box
    content = image[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
    end_x, end_y = min(left % 1 + right - left, content.shape[1]), min(top % 1 + bottom - top, content.shape[0])
    return np.stack([_thumbnail(frame, None), _thumbnail(content, (left % 1, top % 1, end_x, end_y))])


def _thumbnail(pixels: Pixels, box: tuple[float, float, float, float] | None) -> npt.NDArray[np.uint8]:
    # First whole blocks of pixels are averaged, as long as twice the size is left: as good, and twice as fast.
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.HAMMING, box=box, reducing_gap=2.0))


def has_contrast(found: Thumbnails) -> bool:
    """Tell whether any colour channel of the content varies enough to compare images by."""
    return float(cv2.meanStdDev(found[1])[1].max()) >= _MIN_CONTRAST


def aspects(size: tuple[int, int], box: Box) -> tuple[float, float]:
    """Return width / height of frame and content."""
    return size[0] / size[1], (box[2] - box[0]) / (box[3] - box[1])


def cells(found: Thumbnails) -> npt.NDArray[np.uint8]:
    """Return (2, 64): the rounded grey means of the 8 x 8 cells of frame and content."""
    means = found.reshape(2, _CELLS, _CELL_SIDE, _CELLS, _CELL_SIDE, 3).mean(axis=(2, 4, 5))
    return means.round().astype(np.uint8).reshape(2, _CELLS**2)


def difference(one: Fingerprint, other: Fingerprint) -> float:
    """Return how much two images differ, as a share of what copies may: at most 1 for the same image.

    The better of frame (a re-encoded or rescaled copy) and content (a copy on another canvas) counts.
    """
    apart = np.maximum(one.thumbnails, other.thumbnails) - np.minimum(one.thumbnails, other.thumbnails)
    # Each run of 24 numbers is a row of one cell: summing along what lies together is ten times faster.
    worst = apart.reshape(2, _CELLS, _CELL_SIDE, _CELLS, _CELL_SIDE * 3).mean(axis=(2, 4)).max(axis=(1, 2))
    shares = worst / (MAX_FRAME_DIFFERENCE, MAX_CONTENT_DIFFERENCE)
    stretched = np.abs(np.log(np.divide(one.aspects, other.aspects))) > _MAX_ASPECT_DIFFERENCE
    return float(np.where(stretched, np.inf, shares).min())


def cells_from_hex(digits: str) -> npt.NDArray[np.uint8]:
    """Return what `cells` gave from its bytes in hexadecimal digits."""
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(2, _CELLS**2)


def search(
    all_cells: Sequence[npt.NDArray[np.uint8]], fingerprint_of: Callable[[int], Fingerprint]
) -> list[tuple[int, int, float]]:
    """Return the pairs (i, j), i < j, of the same image with their difference, sorted.

    `all_cells` holds what `cells` gives; the fingerprint itself is asked for only where these are close. Where more
    than MAX_CANDIDATES are close to an image, the first of them count: those that matter most must come first.
    """
    remembered = lru_cache(maxsize=1024)(fingerprint_of)
    candidates: set[tuple[int, int]] = set()
    for view, limit in enumerate((MAX_FRAME_DIFFERENCE, MAX_CONTENT_DIFFERENCE)):
        candidates.update((int(i), int(j)) for i, j in _candidates([one[view] for one in all_cells], limit))
    measured = ((i, j, difference(remembered(i), remembered(j))) for i, j in sorted(candidates))
    return [(i, j, value) for i, j, value in measured if value <= 1]


def _candidates(points: Sequence[npt.NDArray[np.uint8]], limit: float) -> npt.NDArray[np.intp]:
    """Return the pairs (i, j), i < j, whose worst cell can differ by no more than `limit`, and some more.

    The difference of two means is at most the mean of the differences, and rounding moves each mean by up to a half.
    """
    if len(points) < 2:
        return np.empty((0, 2), np.intp)
    means, reach = np.asarray(points, np.int16), limit + 1
    # A tree over all 64 cells prunes nothing; over the few that vary most, each in its own way, it leaves few pairs.
    sample = means[:: max(1, len(means) // _SAMPLED_IMAGES)].astype(np.float64)
    telling = qr(sample - sample.mean(axis=0), mode="r", pivoting=True)[1][:_TELLING_CELLS]
    blocks = _close_pairs(means[:, telling], reach)
    close = (block[np.abs(means[block[:, 0]] - means[block[:, 1]]).max(axis=1) <= reach] for block in blocks)
    # Each block by itself, so that a crowd is never in memory as a whole; then over the blocks.
    return _first_of_each(np.concatenate([np.empty((0, 2), np.intp), *map(_first_of_each, close)]))


def _close_pairs(points: npt.NDArray[np.int16], reach: float) -> Iterator[npt.NDArray[np.intp]]:
    """Yield all pairs (i, j), i < j, of points that differ by at most `reach` in each place, some at a time."""
    tree = cKDTree(points)
    for start in range(0, len(points), _BLOCK_IMAGES):
        near = tree.query_ball_point(points[start : start + _BLOCK_IMAGES], reach, p=np.inf, workers=-1)
        counts = np.fromiter(map(len, near), np.intp, len(near))
        i = np.fromiter(chain.from_iterable(near), np.intp, counts.sum())
        j = np.repeat(np.arange(start, start + len(near)), counts)
        yield np.stack([i, j], axis=1)[i < j]


def _first_of_each(pairs: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return of all pairs (i, j) with the same j those with the MAX_CANDIDATES lowest i."""
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    place = np.arange(len(pairs)) - np.searchsorted(pairs[:, 1], pairs[:, 1])
    return pairs[place < MAX_CANDIDATES]
