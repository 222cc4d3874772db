"""Hashes of how an image looks, bit for bit those of the imagehash library, and the search for close ones.

They are recorded, compared and reported, not believed: see skincare.cleaning.near_duplicates.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fftpack

Bits = npt.NDArray[np.bool_]

_WORD_BITS: Final = 64
# Enlarged by this before the cosine transform, as imagehash does.
_PERCEPTUAL_OVERSAMPLING: Final = 4
# Pairs compared at a time: 32 MB of words.
_BLOCK_PAIRS: Final = 1_000_000


def difference_hash(grey: Image.Image, side: int = 16) -> Bits:
    """Return (side, side): whether each of side + 1 columns of the reduced image outshines the one before.

    Source: N. Krawetz, "Kind of Like That" (2013); bit for bit the `dhash` of imagehash.
    """
    reduced = np.asarray(grey.resize((side + 1, side), Image.Resampling.LANCZOS))
    return reduced[:, 1:] > reduced[:, :-1]


def perceptual_hash(grey: Image.Image, side: int = 16) -> Bits:
    """Return (side, side): which of the lowest frequencies are stronger than their median.

    Bit for bit the `phash` of imagehash.
    """
    size = side * _PERCEPTUAL_OVERSAMPLING
    reduced = np.asarray(grey.resize((size, size), Image.Resampling.LANCZOS))
    low = fftpack.dct(fftpack.dct(reduced, axis=0), axis=1)[:side, :side]
    return low > np.median(low)


def reference_hash(grey: Image.Image) -> Bits:
    """Return (8, 8): the difference hash of the reference as it ran, walking rows of 9 pixels in steps of 8."""
    pixels = np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS)).ravel()
    return (pixels[:64] > pixels[1:65]).reshape(8, 8)


def to_hex(bits: Bits) -> str:
    """Return the bits, row by row, as hexadecimal digits."""
    return np.packbits(bits.ravel()).tobytes().hex()


def to_words(digits: list[str]) -> npt.NDArray[np.uint64]:
    """Return (N, bits / 64) words of N hashes given as equally many hexadecimal digits."""
    packed = np.frombuffer(bytes.fromhex("".join(digits)), np.uint8)
    return packed.reshape(len(digits), -1).view(np.uint64) if digits else np.empty((0, 1), np.uint64)


def close_pairs(words: npt.NDArray[np.uint64], max_distance: int) -> npt.NDArray[np.int64]:
    """Return (n, 2), sorted: all pairs i < j of hashes that differ in at most `max_distance` bits.

    Exact: cut into max_distance + 1 bands, two such hashes agree in one of them. Only those that do are compared.
    """
    found = [_within(words, pairs, max_distance) for band in _bands(words, max_distance + 1) for pairs in _equal(band)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return np.unique(pairs, axis=0)


def _bands(words: npt.NDArray[np.uint64], n_bands: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield each band of bits as one number a hash; every band gets its share of bits that tell images apart."""
    if len(words) < 2:
        return
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    # Borders are white in nearly all packshots: a band of nothing but such bits would hold all images in one bucket.
    by_variety = np.argsort(np.abs(bits.mean(axis=0) - 0.5), kind="stable")
    for band in range(n_bands):
        packed = np.packbits(bits[:, by_variety[band::n_bands][:_WORD_BITS]], axis=1)
        key = np.zeros((len(words), 8), np.uint8)
        key[:, : packed.shape[1]] = packed
        yield key.view(np.uint64).ravel()


def _equal(keys: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield all pairs i < j of equal keys, some at a time."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    # From each place of the sorted list to the end of its run of equal keys.
    n_after = np.searchsorted(ordered, ordered, side="right") - np.arange(len(ordered)) - 1
    total = np.concatenate([[0], np.cumsum(n_after)])
    start = 0
    while start < len(ordered):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + _BLOCK_PAIRS, side="right")) - 1)
        counts = n_after[start:stop]
        first = np.repeat(np.arange(start, stop), counts)
        offset = np.arange(len(first)) - np.repeat(total[start:stop] - total[start], counts)
        yield np.stack([order[first], order[first + 1 + offset]], axis=1)
        start = stop


def _within(words: npt.NDArray[np.uint64], pairs: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    distance = np.bitwise_count(words[pairs[:, 0]] ^ words[pairs[:, 1]]).sum(axis=1, dtype=np.int64)
    return np.asarray(pairs[distance <= limit])
