"""Copies are found, look-alikes are not merged."""

import csv
import io
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from skincare.cleaning import inspection, near_duplicates
from skincare.images import decode
from skincare.sample import drawing


def _fingerprint(image: Image.Image):
    """Return what the cleaning compares a lossless file of the image by; None where there is nothing to compare."""
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    metrics, thumbnails = inspection.measure(buffer.getvalue())
    return None if thumbnails is None else metrics.fingerprint(thumbnails)


def _same_images(prints):
    places = [place for place, one in enumerate(prints) if one]
    cells = [near_duplicates.cells(prints[place].thumbnails) for place in places]
    return [(places[i], places[j]) for i, j, _ in near_duplicates.search(cells, lambda i: prints[places[i]])]


def _pack(seed: int, side_px: int = 600) -> Image.Image:
    rng = random.Random(seed)
    return drawing.draw(drawing.random_packaging(rng), drawing.View(), side_px, f"BRAND{seed}").image


def _recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "change",
    [
        lambda image: _recompressed(image, 40),
        lambda image: image.resize((333, 333), Image.Resampling.LANCZOS),
        lambda image: _recompressed(image.resize((900, 900), Image.Resampling.BICUBIC), 70),
        lambda image: Image.eval(image, lambda value: min(255, value + 3)),
    ],
    ids=["recompressed", "smaller", "larger", "brighter"],
)
def test_a_copy_is_found(seed, change):
    image = _pack(seed)
    assert _same_images([_fingerprint(image), _fingerprint(change(image))]) == [(0, 1)]


@pytest.mark.parametrize("seed", range(12))
def test_a_copy_with_more_white_around_it_is_found(seed):
    """Wherever the blocks of compression begin on the larger canvas."""
    rng = random.Random(seed)
    image = _pack(seed, rng.choice([500, 600, 800, 1000]))
    wider = Image.new("RGB", (round(image.width * 1.5), round(image.height * 1.3)), (255, 255, 255))
    wider.paste(image, (rng.randint(0, wider.width - image.width), rng.randint(0, wider.height - image.height)))
    copy = _fingerprint(_recompressed(wider, 80))
    assert _same_images([_fingerprint(_recompressed(image, 90)), copy]) == [(0, 1)]


def test_an_image_squeezed_to_another_shape_is_no_duplicate():
    whole = _pack(3, 480)
    squeezed = _fingerprint(whole.resize((480, 240)))
    assert near_duplicates.difference(_fingerprint(whole), _fingerprint(whole)) <= 1
    assert near_duplicates.difference(_fingerprint(whole), squeezed) > 1


def test_400_different_packs_on_white_stay_400():
    seen = {}
    for seed in range(440):
        packaging = drawing.random_packaging(random.Random(seed))
        seen.setdefault(packaging, seed)
    prints = [_fingerprint(_pack(seed, 400)) for seed in list(seen.values())[:400]]
    assert _same_images(prints) == []


def test_shades_of_one_pack_differ():
    packaging = drawing.random_packaging(random.Random(1))
    one = drawing.draw(replace(packaging, body_colour="pink"), drawing.View(), 500, "SHADE").image
    other = drawing.draw(replace(packaging, body_colour="purple"), drawing.View(), 500, "SHADE").image
    assert _same_images([_fingerprint(one), _fingerprint(other)]) == []


def test_no_pair_is_missed_by_the_search():
    base = _pack(2)
    rng = np.random.default_rng(0)
    images = []
    for strength in (0, 2, 5, 8, 12, 20):
        change = np.kron(rng.integers(-strength, strength + 1, (6, 6, 3)), np.ones((100, 100, 1), dtype=int))
        images.append(Image.fromarray(np.clip(np.asarray(base) + change, 0, 255).astype(np.uint8)))
    prints = [
        near_duplicates.Fingerprint(near_duplicates.thumbnails(pixels, pixels, (0, 0, 600, 600)), (1.0, 1.0))
        for pixels in map(np.asarray, images)
    ]
    pairs = [(i, j) for j in range(6) for i in range(j) if near_duplicates.difference(prints[i], prints[j]) <= 1]
    assert _same_images(prints) == sorted(pairs)
    assert 0 < len(pairs) < 15


def test_a_crowd_of_copies_costs_only_so_many_comparisons(monkeypatch):
    """All are still tied to the first, which is the one that stays."""
    monkeypatch.setattr(near_duplicates, "MAX_CANDIDATES", 5)
    monkeypatch.setattr(near_duplicates, "_BLOCK_IMAGES", 7)
    placeholder = [_fingerprint(_recompressed(_pack(3, 300), 40 + i)) for i in range(40)]
    others = [_fingerprint(_pack(seed, 300)) for seed in range(10, 20)]
    found = _same_images([others[0], *placeholder, *others[1:], others[0]])
    assert {(i, j) for i, j in found if i == 1} == {(1, j) for j in range(2, 41)}
    assert (0, 50) in found
    assert len(found) <= 5 * 51


def test_images_without_contrast_are_never_near_duplicates():
    blank = [Image.new("RGB", (400, 400), (value, value, value)) for value in (255, 254, 128)]
    assert [_fingerprint(image) for image in blank] == [None, None, None]
    assert _same_images([None, None]) == []


def test_pairs_refer_to_the_places_in_the_list():
    image = _pack(7)
    prints = [None, _fingerprint(_pack(1)), _fingerprint(image), None, _fingerprint(_recompressed(image, 60))]
    assert _same_images(prints) == [(2, 4)]


def test_judged_pairs_of_real_photos_are_judged_alike(real_data):
    for row in csv.DictReader((real_data / "pairs.csv").read_text(encoding="utf-8").splitlines()):
        one, other = (_fingerprint(decode((real_data / row[key]).read_bytes())) for key in ("file_a", "file_b"))
        assert bool(_same_images([one, other])) == row["verdict"].startswith("same:"), row
