"""The hashes are the published ones; the search for close ones misses none."""

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


def test_the_reference_hash_walks_rows_of_nine_in_steps_of_eight():
    pixels = np.asarray(_grey(2).resize((9, 8), Image.Resampling.LANCZOS)).ravel().tolist()
    expected = [[pixels[8 * row + column] > pixels[8 * row + column + 1] for column in range(8)] for row in range(8)]
    assert hashes.reference_hash(_grey(2)).tolist() == expected
    assert not np.array_equal(hashes.reference_hash(_grey(2)), hashes.difference_hash(_grey(2), 8))


@pytest.mark.parametrize("max_distance", [0, 3, 10])
@pytest.mark.parametrize("n_plain_bits", [0, 200], ids=["random", "mostly_white"])
def test_all_close_pairs_are_found(max_distance, n_plain_bits):
    rng = np.random.default_rng(3)
    bits = rng.random((120, 256)) < 0.5
    bits[:, :n_plain_bits] = False
    for copy in range(60, 120):
        bits[copy] = bits[copy - 60] ^ (rng.permutation(256) < copy % 14)
    words = hashes.to_words([hashes.to_hex(one) for one in bits])
    distances = (bits[:, None] ^ bits).sum(axis=2)
    expected = [(i, j) for i in range(120) for j in range(i + 1, 120) if distances[i, j] <= max_distance]
    assert [tuple(pair) for pair in hashes.close_pairs(words, max_distance)] == expected
    assert expected


def test_no_hash_has_no_pairs():
    assert len(hashes.close_pairs(hashes.to_words([]), 5)) == 0
    assert len(hashes.close_pairs(hashes.to_words(["00" * 32]), 5)) == 0
