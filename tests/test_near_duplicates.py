"""Near-duplicates are found; images of different products are not merged."""

import csv
import io
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from skincare.cleaning import alignment, inspection, near_duplicates
from skincare.images import decode
from skincare.sample import drawing


def _inspected(image: Image.Image):
    """Return pixels, metrics and fingerprint of an image; None if it has no contrast."""
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    metrics, thumbnails = inspection.measure(buffer.getvalue())
    return None if thumbnails is None else (np.asarray(image), metrics, metrics.fingerprint(thumbnails))


def _view(inspected, is_content):
    pixels, metrics, _ = inspected
    left, top, right, bottom = metrics.box if is_content else (0, 0, *pixels.shape[1::-1])
    return pixels[top:bottom, left:right]


def _candidates(inspected):
    """Return the candidates of the search, as indices into the list."""
    places = [place for place, one in enumerate(inspected) if one]
    cells = [near_duplicates.cells(inspected[place][2].thumbnails) for place in places]
    found = near_duplicates.search(cells, lambda i: inspected[places[i]][2])
    return [replace(one, i=places[one.i], j=places[one.j]) for one in found]


def _same_images(images):
    inspected = [_inspected(image) for image in images]
    return [
        (one.i, one.j)
        for one in _candidates(inspected)
        if alignment.view_difference(
            _view(inspected[one.i], one.views[0]), _view(inspected[one.j], one.views[1]), one.alignment
        ) <= 1
    ]  # fmt: skip


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
def test_a_re_encoded_image_is_a_near_duplicate(seed, change):
    image = _pack(seed)
    assert _same_images([image, change(image)]) == [(0, 1)]


@pytest.mark.parametrize("seed", range(12))
def test_an_image_on_a_larger_white_canvas_is_a_near_duplicate(seed):
    """The position of the JPEG blocks on the larger canvas does not matter."""
    rng = random.Random(seed)
    image = _pack(seed, rng.choice([500, 600, 800, 1000]))
    wider = Image.new("RGB", (round(image.width * 1.5), round(image.height * 1.3)), (255, 255, 255))
    wider.paste(image, (rng.randint(0, wider.width - image.width), rng.randint(0, wider.height - image.height)))
    assert _same_images([_recompressed(image, 90), _recompressed(wider, 80)]) == [(0, 1)]


def _scene(seed: int) -> Image.Image:
    """Return an image without a plain background."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((540, 720), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("make", [_pack, _scene])
@pytest.mark.parametrize("seed", range(4))
def test_an_image_cropped_at_its_edges_is_a_near_duplicate(make, seed):
    image = make(seed)
    width, height = image.size
    cut = image.crop((round(0.03 * width), round(0.01 * height), width, round(0.98 * height)))
    assert _same_images([_recompressed(image, 90), _recompressed(cut, 85)]) == [(0, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_a_scene_on_a_white_canvas_is_a_near_duplicate(seed):
    image = _scene(seed)
    canvas = Image.new("RGB", (800, 900), "white")
    canvas.paste(image, (40, 120))
    assert _same_images([_recompressed(image, 90), _recompressed(canvas, 85)]) == [(0, 1)]


@pytest.mark.parametrize("words", [("SERUM", "TONER"), ("DAY", "NIGHT"), ("AHA 7", "BHA 7")])
def test_packs_that_differ_in_a_small_word_are_different(words):
    images = []
    for word in words:
        image = _pack(3)
        ImageDraw.Draw(image).text((280, 330), word, fill="black", font_size=16)
        images.append(_recompressed(image, 90))
    inspected = [_inspected(image) for image in images]
    assert len(_candidates(inspected)) == 1, "the thumbnails do not resolve the word"
    assert _same_images(images) == []


def test_an_image_of_another_aspect_ratio_is_not_a_duplicate():
    whole = _pack(3, 480)
    assert _same_images([whole, whole]) == [(0, 1)]
    assert _candidates([_inspected(whole), _inspected(whole.resize((480, 240)))]) == []


def test_400_different_packs_on_white_have_no_near_duplicates():
    seen = {}
    for seed in range(440):
        packaging = drawing.random_packaging(random.Random(seed))
        seen.setdefault(packaging, seed)
    assert _same_images([_pack(seed, 400) for seed in list(seen.values())[:400]]) == []


def test_colour_shades_of_one_pack_are_different():
    packaging = drawing.random_packaging(random.Random(1))
    one = drawing.draw(replace(packaging, body_colour="pink"), drawing.View(), 500, "SHADE").image
    other = drawing.draw(replace(packaging, body_colour="purple"), drawing.View(), 500, "SHADE").image
    assert _same_images([one, other]) == []


def test_the_search_finds_every_pair_that_compare_accepts():
    base = _pack(2)
    rng = np.random.default_rng(0)
    prints = []
    for strength in (0, 2, 5, 12, 30, 90):
        change = np.kron(rng.integers(-strength, strength + 1, (6, 6, 3)), np.ones((100, 100, 1), dtype=int))
        pixels = np.clip(np.asarray(base) + change, 0, 255).astype(np.uint8)
        thumbnails = near_duplicates.thumbnails(pixels, pixels, (0, 0, 600, 600))
        prints.append((pixels, None, near_duplicates.Fingerprint(thumbnails, (1.0, 1.0))))
    compared = [near_duplicates.compare(i, prints[i][2], j, prints[j][2]) for j in range(6) for i in range(j)]
    expected = sorted((one.i, one.j) for one in compared if one)
    assert [(one.i, one.j) for one in _candidates(prints)] == expected
    assert 0 < len(expected) < 15


def test_comparisons_of_many_near_duplicates_are_bounded(monkeypatch):
    """All near-duplicates remain candidates of the first one, the representative."""
    monkeypatch.setattr(near_duplicates, "MAX_CANDIDATES", 5)
    monkeypatch.setattr(near_duplicates, "_BLOCK_POINTS", 14)
    placeholder = [_inspected(_recompressed(_pack(3, 300), 40 + i)) for i in range(40)]
    others = [_inspected(_pack(seed, 300)) for seed in range(10, 20)]
    found = {(one.i, one.j) for one in _candidates([others[0], *placeholder, *others[1:], others[0]])}
    assert {(i, j) for i, j in found if i == 1} == {(1, j) for j in range(2, 41)}
    assert (0, 50) in found
    assert len(found) <= 5 * 51


def test_images_without_contrast_are_not_near_duplicates():
    blank = [Image.new("RGB", (400, 400), (value, value, value)) for value in (255, 254, 128)]
    assert [_inspected(image) for image in blank] == [None, None, None]
    assert _same_images(blank) == []


def test_pairs_are_indices_into_the_input_list():
    image, blank = _pack(7), Image.new("RGB", (400, 400))
    assert _same_images([blank, _pack(1), image, blank, _recompressed(image, 60)]) == [(2, 4)]


def test_labelled_pairs_of_real_photos_are_classified_correctly(real_data):
    for row in csv.DictReader((real_data / "pairs.csv").read_text(encoding="utf-8").splitlines()):
        pair = [decode((real_data / row[key]).read_bytes()) for key in ("file_a", "file_b")]
        assert bool(_same_images(pair)) == row["verdict"].startswith("same:"), row


def test_cells_are_restored_from_the_digits_that_inspection_stores():
    rng = np.random.default_rng(0)
    _, metrics, fingerprint = _inspected(Image.fromarray(rng.integers(0, 256, (90, 60, 3), dtype=np.uint8)))
    found = near_duplicates.cells_from_hex(metrics.cells)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, near_duplicates.cells(fingerprint.thumbnails))
