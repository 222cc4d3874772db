"""Difference and perceptual hashes, bit for bit those of the imagehash library.

They are written to the tables for comparison; skincare.cleaning.near_duplicates compares pixels.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fftpack

Bits = npt.NDArray[np.bool_]

# Enlarged by this before the cosine transform, as imagehash does.
_PERCEPTUAL_OVERSAMPLING: Final = 4


def difference_hash(grey: Image.Image, side: int = 16) -> Bits:
    """Return (side, side) bits: whether each column of the reduced image is brighter than the one before.

    Source: N. Krawetz, "Kind of Like That" (2013); bit for bit the `dhash` of imagehash.
    """
    reduced = np.asarray(grey.resize((side + 1, side), Image.Resampling.LANCZOS))
    return reduced[:, 1:] > reduced[:, :-1]


def perceptual_hash(grey: Image.Image, side: int = 16) -> Bits:
    """Return (side, side) bits: which of the lowest frequencies are above their median.

    Bit for bit the `phash` of imagehash.
    """
    size = side * _PERCEPTUAL_OVERSAMPLING
    reduced = np.asarray(grey.resize((size, size), Image.Resampling.LANCZOS))
    low = fftpack.dct(fftpack.dct(reduced, axis=0), axis=1)[:side, :side]
    return low > np.median(low)


def reference_hash(grey: Image.Image) -> Bits:
    """Return (8, 8): the difference hash of the reference experiment, which reads rows of 9 pixels in steps of 8."""
    pixels = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS)).ravel()
    return (pixels[:64] > pixels[1:65]).reshape(8, 8)


def to_hex(bits: Bits) -> str:
    """Return the bits, row by row, as hexadecimal digits."""
    return np.packbits(bits.ravel()).tobytes().hex()
