"""The hashes equal those of the imagehash library."""

import imagehash
import numpy as np
import pytest
from PIL import Image

from skincare.cleaning import hashes
from tests.helpers import noise_image


def _grey(seed: int) -> Image.Image:
    noise = noise_image(200 + 31 * seed, 300 - 23 * seed, seed)
    return noise.resize((517, 431), Image.Resampling.BICUBIC).convert("L")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("side", [8, 16])
def test_the_hashes_equal_imagehash(seed, side):
    grey = _grey(seed)
    assert np.array_equal(hashes.difference_hash(grey, side), imagehash.dhash(grey, hash_size=side).hash)
    assert np.array_equal(hashes.perceptual_hash(grey, side), imagehash.phash(grey, hash_size=side).hash)


def test_hexadecimal_digits_are_those_of_imagehash():
    grey = _grey(1)
    assert hashes.to_hex(hashes.perceptual_hash(grey)) == str(imagehash.phash(grey, hash_size=16))


def test_the_reference_hash_reads_rows_of_nine_in_steps_of_eight():
    pixels = np.asarray(_grey(2).resize((9, 8), Image.Resampling.LANCZOS)).ravel().tolist()
    expected = [[pixels[8 * row + column] > pixels[8 * row + column + 1] for column in range(8)] for row in range(8)]
    assert hashes.reference_hash(_grey(2)).tolist() == expected
    assert not np.array_equal(hashes.reference_hash(_grey(2)), hashes.difference_hash(_grey(2), 8))
