"""Alignment and block-wise comparison of two image views, which decides whether they are near-duplicates.

The alignment is estimated on thumbnails: it maps one view to the other after a cropped edge or on another canvas. The
comparison uses the images at up to 512 px: packs that differ in one word differ in a few blocks, a re-encoded or
rescaled duplicate differs in none.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from skincare.images import Pixels

Floats = npt.NDArray[np.float32]

THUMBNAIL_SIDE: Final = 64
CELL_SIDE: Final = 8

# Gauss-Newton steps as (side in pixels, blur in these), coarse to fine: on thumbnails, then on the views themselves.
_STEPS: Final = ((32, 2.0), (32, 2.0), (32, 1.0), (64, 1.0))
_FINE_STEPS: Final = ((128, 1.5), (256, 1.5), (256, 1.0))
# Regularisation: prevents the scales from drifting if a thumbnail is flat in one direction.
_DAMPING: Final = np.diag([50.0, 1.0, 50.0, 1.0]).astype(np.float32)
_MAX_SCALE: Final = 1.18
_MAX_SHIFT: Final = 0.1
# Minimum number of pixels of a cell that lie inside both views.
_LEAST_CELL_PIXELS: Final = 16

# Chosen on 192 real photos, each compared with altered versions of itself. Halved and re-encoded versions match in
# 100 %, those on another canvas in 92 %, those cropped by 3 % in 90 %, those with one line mirrored in 8 %. Larger
# blocks and more blur miss small words.
_SIDE_PX: Final = 512
_BLOCK_PX: Final = 16
_BLUR_PX: Final = 1.0
_REACH_PX: Final = 4
MAX_BLOCK_DIFFERENCE: Final = 0.08
# In grey levels. Duplicates of 192 real photos: 4 without alignment, 7 for 95 % of those that are aligned.
_MAX_COLOUR_DIFFERENCE: Final = 8.0
_COLOUR_BLOCK_PX: Final = 24
_INSIDE_SHARE: Final = 0.99
# As in SSIM, in squared grey levels; large compared with compression noise.
_STABILISER: Final = 50.0


class Alignment(NamedTuple):
    """Separable affine map between two views, around their centres: x' = scale_x * x + shift_x, shifts in widths."""

    scale_x: float
    shift_x: float
    scale_y: float
    shift_y: float

    def matrix(self, width: int, height: int) -> Floats:
        """Return the (2, 3) matrix of the map in pixels of a (height, width) view."""
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        return np.array(
            [[self.scale_x, 0, self.shift_x * width + middle_x * (1 - self.scale_x)],
             [0, self.scale_y, self.shift_y * height + middle_y * (1 - self.scale_y)]], np.float32,
        )  # fmt: skip


IDENTITY: Final = Alignment(1.0, 0.0, 1.0, 0.0)


def align(
    one: Pixels, other: Pixels, start: Alignment = IDENTITY, steps: Sequence[tuple[int, float]] = _STEPS
) -> Alignment | None:
    """Return the alignment that maps one view (H, W, 3) to the other; None if there is none near the identity.

    Source: B. Lucas and T. Kanade, "An iterative image registration technique" (1981), with scale and shift per axis.
    """
    found = start
    for side, blur in steps:
        fixed, moving = (_square(view, side, blur) for view in (one, other))
        warped = _warp(moving, found, cv2.INTER_LINEAR)
        gradient_x, gradient_y = (cv2.Scharr(warped, cv2.CV_32F, *axis) / 32 for axis in ((1, 0), (0, 1)))
        place = np.linspace(-0.5, 0.5, side, dtype=np.float32) * (side - 1)
        columns = [gradient_x * place, gradient_x, gradient_y * place[:, None], gradient_y]
        jacobian = np.stack(columns, axis=-1).reshape(-1, 4)
        normal = jacobian.T @ jacobian + _DAMPING
        scale_x, shift_x, scale_y, shift_y = np.linalg.solve(normal, jacobian.T @ (fixed - warped).ravel())
        found = Alignment(
            float(found.scale_x * (1 + scale_x)), float(found.shift_x + found.scale_x * shift_x / side),
            float(found.scale_y * (1 + scale_y)), float(found.shift_y + found.scale_y * shift_y / side),
        )  # fmt: skip
        scales, shifts = (found.scale_x, found.scale_y), (found.shift_x, found.shift_y)
        if not all(1 / _MAX_SCALE < scale < _MAX_SCALE for scale in scales) or max(map(abs, shifts)) > _MAX_SHIFT:
            return None
    return found


def cell_difference(one: Pixels, other: Pixels, alignment: Alignment) -> float:
    """Return the mean difference in grey levels of the worst of 8 x 8 cells of two aligned thumbnails."""
    warped = _warp(other, alignment, cv2.INTER_LINEAR)
    inside = _warp(np.ones(other.shape[:2], np.uint8), alignment, cv2.INTER_NEAREST, border=cv2.BORDER_CONSTANT)
    apart = cv2.absdiff(one, warped).mean(axis=2) * inside
    shape = (THUMBNAIL_SIDE // CELL_SIDE, CELL_SIDE) * 2
    n_inside = inside.reshape(shape).sum(axis=(1, 3))
    counts = n_inside >= _LEAST_CELL_PIXELS
    sums = apart.reshape(shape).sum(axis=(1, 3))
    return float((sums[counts] / n_inside[counts]).max(initial=0))


def view_difference(one: Pixels, other: Pixels, alignment: Alignment) -> float:
    """Return the difference of the worst block of two aligned views, as a share of the near-duplicate threshold.

    Both (H, W, 3) are reduced to the smaller of them, 512 px at most. Where the alignment, which comes from thumbnails,
    is not good enough, it is refined.
    """
    side = min(_SIDE_PX, max(one.shape[:2]), max(other.shape[:2]))
    scale = side / max(one.shape[:2])
    size = max(1, round(one.shape[1] * scale)), max(1, round(one.shape[0] * scale))
    first, second = (cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in (one, other))
    difference = _aligned_difference(first, second, alignment)  # type: ignore[arg-type]
    if difference > 1:
        refined = align(first, second, alignment, _FINE_STEPS)  # type: ignore[arg-type]
        if refined:
            difference = min(difference, _aligned_difference(first, second, refined))  # type: ignore[arg-type]
    return difference


def _aligned_difference(one: Pixels, other: Pixels, alignment: Alignment) -> float:
    """Return the larger share of two: the difference of the mean colours, and that in structure, of the worst block.

    Structure: 1 less SSIM's term for contrast and structure.
    Source: Z. Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004).
    """
    inside = np.ones(one.shape[:2], np.uint8)
    if alignment != IDENTITY:
        other = _warp(other, alignment, cv2.INTER_CUBIC)
        inside = _warp(inside, alignment, cv2.INTER_NEAREST, border=cv2.BORDER_CONSTANT)
    colour = _colour_difference(one, other, inside) / _MAX_COLOUR_DIFFERENCE
    if colour > 1:
        return colour
    first, second = (_blurred(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), _BLUR_PX) for view in (one, other))
    structure = max(_worst_block(first, second, inside), _worst_block(second, first, inside))
    return max(colour, structure / MAX_BLOCK_DIFFERENCE)


def _colour_difference(one: Any, other: Any, inside: Any) -> float:
    """Return the difference in grey levels of the mean colours of the worst block, of those inside both views."""
    size = tuple(max(1, length // _COLOUR_BLOCK_PX) for length in inside.shape[::-1])
    means = [cv2.resize(view.astype(np.float32), size, interpolation=cv2.INTER_AREA) for view in (one, other, inside)]
    apart = np.abs(means[0] - means[1]).mean(axis=2)
    return float(apart[means[2] > _INSIDE_SHARE].max(initial=0))


def _worst_block(fixed: Floats, moving: Floats, inside: Pixels) -> float:
    """Return the difference in structure of the worst block of `fixed` to its best match in `moving`, within 4 px.

    The search makes up for an alignment that is off by a pixel. It ends at the first block that is too different.
    """
    side = min(_BLOCK_PX, *fixed.shape)
    rows, columns = (np.arange(0, length - side + 1, side) for length in fixed.shape)
    rows, columns = (
        np.union1d(starts, [length - side]) for starts, length in zip((rows, columns), fixed.shape, strict=True)
    )
    blocks = [sliding_window_view(view, (side, side))[np.ix_(rows, columns)].reshape(-1, side**2)
              for view in (fixed, moving, inside)]  # fmt: skip
    places = [(row, column) for row in rows for column in columns]
    difference = _structure_difference(blocks[0], blocks[1])
    difference[~blocks[2].all(axis=1)] = 0
    padded = np.pad(moving, _REACH_PX, mode="edge")
    worst = float(difference[difference <= MAX_BLOCK_DIFFERENCE].max(initial=0))
    for i in np.argsort(-difference):
        if difference[i] <= MAX_BLOCK_DIFFERENCE or worst > MAX_BLOCK_DIFFERENCE:
            break
        row, column = places[i]
        around = padded[row : row + side + 2 * _REACH_PX, column : column + side + 2 * _REACH_PX]
        shifted = sliding_window_view(around, (side, side)).reshape(-1, side**2)
        worst = max(worst, float(_structure_difference(blocks[0][i][None], shifted).min()))
    return worst


def _structure_difference(one: Floats, other: Floats) -> Floats:
    """Return (N,): 1 less SSIM's contrast and structure term of (N, P) and (N, P), or (1, P) and (N, P)."""
    one, other = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    covariance = (one * other).mean(axis=1)
    variances = (one * one).mean(axis=1) + (other * other).mean(axis=1)
    return 1 - (2 * covariance + _STABILISER) / (variances + _STABILISER)


def _square(view: Pixels, side: int, blur: float) -> Floats:
    """Return the smoothed grey levels of a view, (side, side)."""
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    return _blurred(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), blur)


def _blurred(grey: Any, blur: float) -> Floats:
    return cv2.GaussianBlur(grey.astype(np.float32), (0, 0), blur)


def _warp(view: Any, alignment: Alignment, interpolation: int, border: int = cv2.BORDER_REPLICATE) -> Any:
    """Return a view warped by its alignment to the pixels of the other one."""
    height, width = view.shape[:2]
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(view, alignment.matrix(width, height), (width, height), flags=flags, borderMode=border)
