"""Search for candidate near-duplicates: images that are re-encoded, rescaled, cropped at an edge, or on another canvas.

An image has two views: its frame and its content. Those of two images are compared on thumbnails, in all four pairs:
a photo that was put on a larger canvas is the content of the new frame. `search` returns the pairs whose thumbnails
match, with their alignment; `skincare.cleaning.alignment.block_difference` then compares the images themselves.

Hashes cannot decide: packs of different products on white are closer to each other than two photos of one product (of
400 drawn bottles the reference experiment's 64-bit difference hash would reject 297), and in plain areas their bits are
random, so that a duplicate is missed. The search compares the grey means of 8 x 8 cells, whose difference is at most
that of the thumbnails: it misses no pair of the same alignment.
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

from skincare.cleaning import alignment
from skincare.cleaning.alignment import CELL_SIDE, IDENTITY, THUMBNAIL_SIDE, Alignment
from skincare.cleaning.quality import Box
from skincare.images import Pixels

_CELLS: Final = THUMBNAIL_SIDE // CELL_SIDE

# In grey levels of the worst of 8 x 8 cells of the thumbnails. Of pairs of real photos judged by eye, duplicates differ
# by 0 to 2.2 in the frame and 0 to 5.3 in the content, on another canvas too; different products by 8.3 and more in the
# frame, where a small pack fills few cells, and by 18 and more in the content.
_MAX_FRAME_DIFFERENCE: Final = 6.5
_MAX_CONTENT_DIFFERENCE: Final = 10.0
# Factor on these thresholds after alignment, which is inexact on thumbnails: 85 % of 192 real photos cropped by 3 % are
# below them, and one pair of different photos.
_ALIGNED_FACTOR: Final = 2.0
# Of the logarithms of width / height, without alignment (boxes of duplicates differ by a pixel or two) and with it.
_MAX_ASPECT_DIFFERENCE: Final = 0.04
_MAX_ALIGNED_ASPECT_DIFFERENCE: Final = 0.12
# In grey levels of the colour channel with the highest contrast; without it all blank images would be duplicates.
_MIN_CONTRAST: Final = 4.0

# Maximum number of candidates of an image: of those that match without alignment, the first; of those that may match
# after alignment, the nearest. Otherwise a placeholder that a shop re-encodes for each of 10,000 products would give
# 50 million pairs.
MAX_CANDIDATES: Final = 200
_MAX_ALIGNED_CANDIDATES: Final = 8
# In grey levels of the worst cell; 91 % of 192 real photos cropped by 3 % are within it of the original.
_ALIGNED_REACH: Final = 25.0

# These affect the speed of the search, not its result.
_SAMPLED_IMAGES: Final = 500
_SEARCH_CELLS: Final = 8
_BLOCK_POINTS: Final = 64

Thumbnails = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fingerprint:
    """The two views of an image, frame and content, each reduced to one size whatever its shape.

    thumbnails: (2, 64, 64, 3) uint8; aspects: width / height of the two.
    """

    thumbnails: npt.NDArray[np.uint8]
    aspects: tuple[float, float]


def thumbnails(frame: Pixels, image: Pixels, box: tuple[float, float, float, float]) -> Thumbnails:
    """Return the thumbnails of frame and content, (2, 64, 64, 3); `box` encloses the content.

    The content is taken from a larger `image`, whose pixels `box` is in: blocks that begin elsewhere on another
    canvas would blur it otherwise, and half of the near-duplicates with a larger white margin would be missed.
    """
    left, top, right, bottom = box
    content = image[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
    end_x, end_y = min(left % 1 + right - left, content.shape[1]), min(top % 1 + bottom - top, content.shape[0])
    return np.stack([_thumbnail(frame, None), _thumbnail(content, (left % 1, top % 1, end_x, end_y))])


def _thumbnail(pixels: Pixels, box: tuple[float, float, float, float] | None) -> npt.NDArray[np.uint8]:
    # Averaging whole blocks first, down to twice the size, gives equal quality in half the time.
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.HAMMING, box=box, reducing_gap=2.0))


def has_contrast(found: Thumbnails) -> bool:
    """Return whether any colour channel of the content has enough contrast for a comparison."""
    return float(cv2.meanStdDev(found[1])[1].max()) >= _MIN_CONTRAST


def aspects(size: tuple[int, int], box: Box) -> tuple[float, float]:
    """Return width / height of frame and content."""
    return size[0] / size[1], (box[2] - box[0]) / (box[3] - box[1])


def cells(found: Thumbnails) -> npt.NDArray[np.uint8]:
    """Return (2, 64): the rounded grey means of the 8 x 8 cells of frame and content."""
    means = found.reshape(2, _CELLS, CELL_SIDE, _CELLS, CELL_SIDE, 3).mean(axis=(2, 4, 5))
    return means.round().astype(np.uint8).reshape(2, _CELLS**2)


def cells_from_hex(digits: str) -> npt.NDArray[np.uint8]:
    """Return the array of `cells` from its bytes in hexadecimal digits."""
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(2, _CELLS**2)


@dataclass(frozen=True)
class Candidate:
    """Two images, i < j, that may be near-duplicates: the view of each, and the alignment.

    difference: of the thumbnails, as a share of the threshold for near-duplicates.
    """

    i: int
    j: int
    views: tuple[int, int]
    alignment: Alignment
    difference: float


def search(all_cells: Sequence[npt.NDArray[np.uint8]], fingerprint_of: Callable[[int], Fingerprint]) -> list[Candidate]:
    """Return the pairs of images that may be near-duplicates, sorted.

    `all_cells` holds what `cells` returns; `fingerprint_of` is called only where these are close. If more than
    MAX_CANDIDATES are close to an image, the first ones are used, so the preferred images must come first.
    """
    remembered = lru_cache(maxsize=1024)(fingerprint_of)
    pairs = ((int(i), int(j)) for i, j in _close_images(all_cells))
    found = (compare(i, remembered(i), j, remembered(j)) for i, j in pairs)
    return [one for one in found if one]


def compare(i: int, one: Fingerprint, j: int, other: Fingerprint) -> Candidate | None:
    """Return the best pair of views of two images below the threshold; aligns them only if no pair matches as is."""
    plain = [_plain_difference(one, other, views) for views in _VIEWS]
    best = min(range(len(_VIEWS)), key=plain.__getitem__)
    if plain[best] <= 1:
        found = _aligned(i, one, j, other, _VIEWS[best])
        is_better = found and _ALIGNED_FACTOR * found.difference < plain[best]
        return found if is_better else Candidate(i, j, _VIEWS[best], IDENTITY, plain[best])
    aligned = [found for views in _VIEWS if (found := _aligned(i, one, j, other, views))]
    return min(aligned, key=lambda found: found.difference, default=None)


_VIEWS: Final = ((0, 0), (1, 1), (0, 1), (1, 0))


def _threshold(views: tuple[int, int]) -> float:
    return _MAX_FRAME_DIFFERENCE if views == (0, 0) else _MAX_CONTENT_DIFFERENCE


def _aspect_difference(one: Fingerprint, other: Fingerprint, views: tuple[int, int]) -> float:
    return abs(math.log(one.aspects[views[0]] / other.aspects[views[1]]))


def _plain_difference(one: Fingerprint, other: Fingerprint, views: tuple[int, int]) -> float:
    """Return the difference of two views as they are, infinite for views of another shape."""
    if _aspect_difference(one, other, views) > _MAX_ASPECT_DIFFERENCE:
        return math.inf
    apart = cv2.absdiff(one.thumbnails[views[0]], other.thumbnails[views[1]])
    # Each run of 24 numbers is a row of one cell: summing contiguous memory is ten times faster.
    worst = apart.reshape(_CELLS, CELL_SIDE, _CELLS, CELL_SIDE * 3).mean(axis=(1, 3)).max()
    return float(worst) / _threshold(views)


def _aligned(i: int, one: Fingerprint, j: int, other: Fingerprint, views: tuple[int, int]) -> Candidate | None:
    """Return the candidate of two views that match after alignment."""
    if _aspect_difference(one, other, views) > _MAX_ALIGNED_ASPECT_DIFFERENCE:
        return None
    first, second = one.thumbnails[views[0]], other.thumbnails[views[1]]
    if np.abs(_cell_means(first) - _cell_means(second)).max() > _ALIGNED_REACH:
        return None
    found = alignment.align(first, second)
    if found is None:
        return None
    difference = alignment.cell_difference(first, second, found) / (_ALIGNED_FACTOR * _threshold(views))
    return Candidate(i, j, views, found, difference) if difference <= 1 else None


def _cell_means(thumbnail: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return thumbnail.reshape(_CELLS, CELL_SIDE, _CELLS, CELL_SIDE * 3).mean(axis=(1, 3))


def _close_images(all_cells: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.intp]:
    """Return the sorted pairs (i, j), i < j, of images of which any two views may match.

    The difference of two means is at most the mean of the differences, and rounding moves each mean by up to a half.
    """
    if len(all_cells) < 2:
        return np.empty((0, 2), np.intp)
    # Frame and content of image i are points 2 i and 2 i + 1.
    means = np.concatenate(all_cells).astype(np.int16)
    # A tree over all 64 cells prunes nothing; over the few that vary most, each in its own way, it leaves few pairs.
    sample = means[:: max(1, len(means) // _SAMPLED_IMAGES)].astype(np.float64)
    selected = qr(sample - sample.mean(axis=0), mode="r", pivoting=True)[1][:_SEARCH_CELLS]
    plain, aligned = [], []
    for points in _close_pairs(means[:, selected], _ALIGNED_REACH + 1):
        distance = np.abs(means[points[:, 0]] - means[points[:, 1]]).max(axis=1)
        images = points // 2
        is_plain = distance <= _MAX_CONTENT_DIFFERENCE + 1
        is_near = (distance <= _ALIGNED_REACH + 1) & ~is_plain
        differ = images[:, 0] < images[:, 1]
        # Block by block, so that a large group is never in memory as a whole; then across the blocks.
        plain.append(_best_of_each(images[is_plain & differ], images[is_plain & differ, 0], MAX_CANDIDATES))
        aligned.append(np.column_stack([images, distance])[is_near & differ])
        aligned[-1] = _best_of_each(aligned[-1], aligned[-1][:, 2], _MAX_ALIGNED_CANDIDATES)
    first, nearest = np.concatenate(plain), np.concatenate(aligned)
    first = _best_of_each(first, first[:, 0], MAX_CANDIDATES)
    nearest = _best_of_each(nearest, nearest[:, 2], _MAX_ALIGNED_CANDIDATES)
    return np.unique(np.concatenate([first, nearest[:, :2]]), axis=0)


def _close_pairs(points: npt.NDArray[np.int16], reach: float) -> Iterator[npt.NDArray[np.intp]]:
    """Yield all pairs (i, j), i < j, of points that differ by at most `reach` in each place, in blocks by j."""
    tree = cKDTree(points)
    for start in range(0, len(points), _BLOCK_POINTS):
        near = tree.query_ball_point(points[start : start + _BLOCK_POINTS], reach, p=np.inf, workers=-1)
        counts = np.fromiter(map(len, near), np.intp, len(near))
        i = np.fromiter(chain.from_iterable(near), np.intp, counts.sum())
        j = np.repeat(np.arange(start, start + len(near)), counts)
        yield np.stack([i, j], axis=1)[i < j]


def _best_of_each(pairs: npt.NDArray[np.intp], rank: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.intp]:
    """Return of all rows (i, j, ...) with the same j the n of the lowest rank, each (i, j) once."""
    order = np.lexsort((rank, pairs[:, 0], pairs[:, 1]))
    pairs, rank = pairs[order], rank[order]
    is_new = np.append(True, (np.diff(pairs[:, :2], axis=0) != 0).any(axis=1))[: len(pairs)]
    pairs, rank = pairs[is_new], rank[is_new]
    order = np.lexsort((pairs[:, 0], rank, pairs[:, 1]))
    pairs = pairs[order]
    place = np.arange(len(pairs)) - np.searchsorted(pairs[:, 1], pairs[:, 1])
    return pairs[place < n]
