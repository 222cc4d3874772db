"""The background of a product photo, estimated from its border: one colour, a gradient, or a wall above a table.

In: (H, W, 3) float32 in CIELAB, where a distance of about 2 is just noticeable. Out: a `Background`.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from skincare.cleaning.quality import PLAIN_BORDER_SHARE

Lab = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Twice the grain of a JPEG of quality 50.
TOLERANCE: Final = 5.0
# Wide enough for medians, narrow enough to avoid a product that nearly fills the frame.
_BAND_SHARE: Final = 0.015
# Share of the border that is assumed to be background; the rest may be a pack that leaves the frame, or a shadow.
_TRUSTED_SHARE: Final = 0.6
_N_FITS: Final = 4


@dataclass(frozen=True)
class Background:
    """The background of an image, continued behind the product.

    colours: (H, W, 3); border: (H, W), the pixels that it is fitted to; plain_share: their share within TOLERANCE.
    """

    colours: Lab
    border: Mask
    plain_share: float

    @property
    def is_plain(self) -> bool:
        """Return whether the background is plain enough to segment the product."""
        return self.plain_share >= PLAIN_BORDER_SHARE


def to_lab(pixels: npt.NDArray[np.uint8]) -> Lab:
    """Return (H, W, 3) RGB as CIELAB: lightness 0 to 100, two colour axes around 0."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)  # type: ignore[return-value]


def fit_background(lab: Lab) -> Background:
    """Return the better fit of a smooth surface and of linear interpolation along each row."""
    height, width = lab.shape[:2]
    band = max(2, round(_BAND_SHARE * max(height, width)))
    border = np.ones((height, width), dtype=bool)
    border[band : height - band, band : width - band] = False

    def candidate(colours: Any) -> Background:
        is_near = np.linalg.norm(lab[border] - colours[border], axis=1) <= TOLERANCE
        return Background(colours.astype(np.float32), border, float(is_near.mean()))

    surface, rows = candidate(_surface(lab, border)), candidate(_rows(lab, band))
    return surface if surface.plain_share >= rows.plain_share else rows


def _surface(lab: Lab, border: Mask) -> Any:
    """Return a quadratic surface fitted robustly to the border; outliers are ignored."""
    height, width = border.shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    known, wanted = terms[border], lab[border]
    distance = np.linalg.norm(wanted - np.median(wanted, axis=0), axis=1)
    for _ in range(_N_FITS):
        is_trusted = distance <= max(float(np.quantile(distance, _TRUSTED_SHARE)), TOLERANCE / 2)
        factors = np.linalg.lstsq(known[is_trusted], wanted[is_trusted], rcond=None)[0]
        distance = np.linalg.norm(known @ factors - wanted, axis=1)
    return terms @ factors


def _rows(lab: Lab, band: int) -> Any:
    """Return the linear interpolation from the left border to the right border of each row."""
    left, right = np.median(lab[:, :band], axis=1), np.median(lab[:, -band:], axis=1)
    share = np.linspace(0, 1, lab.shape[1])[None, :, None]
    return left[:, None] * (1 - share) + right[:, None] * share
