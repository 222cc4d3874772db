"""Which pictures are the same picture: equal bytes, equal pixels, or re-encoded and rescaled copies.

Pixels decide, on thumbnails of the frame and of its content. A hash cannot: packs of different products on white are
closer to each other than two photos of one product (of 400 drawn bottles the reference's 64-bit difference hash would
drop 297), and plain areas make its bits toss a coin, so that a copy is missed. It is recorded, not believed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from skincare.quality import Box

_THUMBNAIL_SIDE: Final = 64
_CELLS: Final = 8
_CELL_SIDE: Final = _THUMBNAIL_SIDE // _CELLS

# In grey levels of the worst of 8 x 8 cells of the thumbnails, so that a changed word on the label weighs as much as a
# changed pack. Of pairs of real photos judged by eye, copies differ by 0 to 2.5 in both; different products by 9 and
# more in the frame, where a small pack fills few cells, and by 25 and more in the content.
MAX_FRAME_DIFFERENCE: Final = 6.5
MAX_CONTENT_DIFFERENCE: Final = 10.0
# Of the logarithms of width / height: content boxes of copies differ by a pixel or two.
_MAX_ASPECT_DIFFERENCE: Final = 0.04
# A picture without contrast has no fingerprint worth the name: all blank pages would be one.
_MIN_CONTRAST: Final = 4.0

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fingerprint:
    """What pictures are compared by: their frame and their content, reduced to one size whatever their shape.

    thumbnails: (2, 64, 64, 3) uint8; aspects: width / height of the two.
    """

    thumbnails: npt.NDArray[np.uint8]
    aspects: tuple[float, float]


def fingerprint(image: Image.Image, box: Box) -> Fingerprint | None:
    """Return the fingerprint of an RGB picture whose content lies in `box`; None for one without contrast."""
    size = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    boxes = ((0, 0, *image.size), box)
    thumbnails = np.stack([np.asarray(image.resize(size, Image.Resampling.BOX, box=one)) for one in boxes])
    if float(thumbnails[1].std()) < _MIN_CONTRAST:
        return None
    frame, content = ((right - left) / (bottom - top) for left, top, right, bottom in boxes)
    return Fingerprint(thumbnails, (frame, content))


def difference_hash(image: Image.Image, side: int = 16) -> Bits:
    """Return (side, side): whether each of side + 1 columns of the reduced grey picture outshines the one before.

    Source: N. Krawetz, "Kind of Like That" (2013); bit for bit the `dhash` of the imagehash library.
    """
    reduced = np.asarray(image.convert("L").resize((side + 1, side), Image.Resampling.LANCZOS))
    return reduced[:, 1:] > reduced[:, :-1]


def difference(one: Fingerprint, other: Fingerprint) -> float:
    """Return how much two pictures differ, as a share of what copies may: at most 1 for the same picture.

    The better of frame (a re-encoded or rescaled copy) and content (a copy on another canvas) counts.
    """
    cells = np.abs(one.thumbnails.astype(np.int16) - other.thumbnails).mean(axis=3)
    worst = cells.reshape(2, _CELLS, _CELL_SIDE, _CELLS, _CELL_SIDE).mean(axis=(2, 4)).max(axis=(1, 2))
    shares = worst / (MAX_FRAME_DIFFERENCE, MAX_CONTENT_DIFFERENCE)
    stretched = np.abs(np.log(np.divide(one.aspects, other.aspects))) > _MAX_ASPECT_DIFFERENCE
    return float(np.where(stretched, np.inf, shares).min())


def same_pictures(fingerprints: Sequence[Fingerprint | None]) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of the same picture, sorted. Not transitive: a chain may drift."""
    known = [(i, one) for i, one in enumerate(fingerprints) if one is not None]
    candidates: set[tuple[int, int]] = set()
    for view, limit in enumerate((MAX_FRAME_DIFFERENCE, MAX_CONTENT_DIFFERENCE)):
        candidates.update(_candidates([one.thumbnails[view] for _, one in known], limit))
    return sorted((known[a][0], known[b][0]) for a, b in candidates if difference(known[a][1], known[b][1]) <= 1)


def _candidates(thumbnails: Sequence[npt.NDArray[np.uint8]], limit: float) -> Iterator[tuple[int, int]]:
    """Yield every pair (a, b), a < b, whose worst cell can differ by no more than `limit`, and some more.

    The difference of two means is at most the mean of the differences: comparing the cells' means, 192 numbers instead
    of 12,288, misses none. So does the mean of all, which tells where in a sorted list to look.
    """
    if not thumbnails:
        return
    cells = np.stack([
        one.reshape(_CELLS, _CELL_SIDE, _CELLS, _CELL_SIDE, 3).mean(axis=(1, 3), dtype=np.float32).ravel()
        for one in thumbnails
    ])  # fmt: skip
    brightness = cells.mean(axis=1, dtype=np.float64)
    order = np.argsort(brightness, kind="stable")
    cells, brightness = cells[order], brightness[order]
    ends = np.searchsorted(brightness, brightness + limit, side="right")
    for i, end in enumerate(ends):
        # A cell's difference is the mean over three colours, so that a single one may reach three times the limit.
        near = (np.abs(cells[i + 1 : end] - cells[i]) <= 3 * limit).all(axis=1)
        for offset in np.flatnonzero(near):
            a, b = sorted((int(order[i]), int(order[i + 1 + offset])))
            yield a, b
