"""Sharpness does not depend on size, canvas or colours; the content box is located correctly."""

import csv
import random

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from skincare import images
from skincare.cleaning import quality
from skincare.images import decode
from skincare.sample import drawing


def _box(image: Image.Image) -> quality.Box:
    pixels = np.asarray(image)
    return quality.content_box(pixels, pixels)


def _measure(image: Image.Image) -> quality.Sharpness:
    grey = quality.to_grey(np.asarray(image))
    return quality.sharpness(grey, quality.content_grey(grey, _box(image)))


def _pack(seed: int, side_px: int = 700) -> Image.Image:
    rng = random.Random(seed)
    return drawing.draw(drawing.random_packaging(rng), drawing.View(), side_px, "BRAND").image


def test_plain_sharpness_is_the_variance_of_opencvs_laplacian():
    image = _pack(0)
    grey = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY)
    assert _measure(image).plain == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var())


@pytest.mark.parametrize("seed", range(20))
def test_a_sharp_pack_passes_and_its_blurred_version_fails(seed):
    image = _pack(seed)
    assert _measure(image).content >= quality.MIN_SHARPNESS
    blurred = image.filter(ImageFilter.GaussianBlur(9))
    assert _measure(blurred).content < quality.MIN_SHARPNESS


def test_content_sharpness_hardly_depends_on_size_and_canvas():
    image = _pack(4, 1600)
    small = image.resize((800, 800), Image.Resampling.BOX)
    wide = Image.new("RGB", (2400, 2400), (255, 255, 255))
    wide.paste(image, (300, 500))
    contents = [_measure(one).content for one in (image, small, wide)]
    plains = [_measure(one).plain for one in (image, small, wide)]
    assert max(contents) / min(contents) < 1.2
    assert max(plains) / min(plains) > 2


def test_the_content_box_encloses_the_content():
    image = Image.new("RGB", (800, 600), (250, 250, 250))
    ImageDraw.Draw(image).rectangle((200, 100, 399, 499), fill=(30, 60, 90))
    left, top, right, bottom = _box(image)
    assert all(abs(a - b) <= 4 for a, b in zip((left, top, right, bottom), (200, 100, 400, 500), strict=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (300, 300)])
def test_a_uniform_image_has_a_full_content_box_and_no_sharpness(size):
    image = Image.new("RGB", size, (200, 200, 200))
    assert _box(image) == (0, 0, *size)
    assert _measure(image).content == 0


def test_an_image_without_a_plain_border_has_a_full_content_box():
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    assert quality.content_box(pixels, pixels) == (0, 0, 300, 300)


def test_real_sharp_photos_pass_and_their_blurred_versions_fail(real_data):
    n_sharp = n_blurred = 0
    rows = list(csv.DictReader((real_data / "photos.csv").read_text(encoding="utf-8").splitlines()))[::4]
    for row in rows:
        image = decode((real_data / row["file"]).read_bytes())
        left, top, right, bottom = _box(image)
        radius = 2.5 * max(0.5, max(right - left, bottom - top) / 384)
        n_sharp += _measure(image).content >= quality.MIN_SHARPNESS
        n_blurred += _measure(image.filter(ImageFilter.GaussianBlur(radius))).content < quality.MIN_SHARPNESS
    assert n_sharp == len(rows)
    assert n_blurred >= 0.95 * len(rows)


@pytest.mark.parametrize("size", [(1, 2000), (2001, 3), (769, 769), (1601, 901), (3, 3), (384, 10)])
def test_images_are_reduced_to_one_size_and_never_enlarged(size):
    grey = np.asarray(Image.linear_gradient("L").resize(size))
    content = quality.content_grey(grey, (0, 0, *size))
    assert max(content.shape) == min(384, max(size))
    assert min(content.shape) >= 1
    if min(content.shape) > 10:
        assert abs(float(content.mean()) - float(grey.mean())) < 1


@pytest.mark.parametrize("size", [(444, 352), (500, 700), (385, 385), (400, 399), (766, 3)])
def test_content_resampling_equals_the_box_filter_of_pil(size):
    grey = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    content = quality.content_grey(grey, (0, 0, *size))
    expected = Image.fromarray(grey).resize(content.shape[::-1], Image.Resampling.BOX)
    assert np.abs(content.astype(int) - np.asarray(expected)).max() <= 1


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 255), max_size=12))
@settings(max_examples=150, deadline=None)
def test_the_content_box_lies_within_the_image(width, height, seed, levels):
    """Test specks, lines and blocks anywhere, also at the border and smaller than the blur."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, np.uint8)
    for level in levels:
        top, left = rng.integers(0, height), rng.integers(0, width)
        down, across = rng.integers(1, 40, 2) if rng.random() < 0.7 else rng.integers(1, 700, 2)
        pixels[top : top + down, left : left + across] = level
    left, top, right, bottom = quality.content_box(pixels, images.reduced(pixels, 192))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize(("n_bright", "brightest"), [(10, 20), (11, 200)])
def test_brightest_is_the_99_percent_quantile(n_bright, brightest):
    content = np.full((40, 25), 20, np.uint8)
    content.ravel()[:n_bright] = 200
    assert quality.tones(content, np.zeros((2, 2, 3), np.uint8)).brightest == brightest


@pytest.mark.parametrize(("n_dark", "darkest"), [(10, 20), (11, 5)])
def test_darkest_is_the_1_percent_quantile(n_dark, darkest):
    content = np.full((40, 25), 20, np.uint8)
    content.ravel()[:n_dark] = 5
    assert quality.tones(content, np.zeros((2, 2, 3), np.uint8)).darkest == darkest


@pytest.mark.parametrize(("n_colourful", "colour"), [(50, 0), (51, 170)])
@pytest.mark.parametrize("rgb", [(200, 30, 100), (100, 200, 30), (30, 100, 200)])
def test_colour_is_the_95_percent_quantile_of_the_channel_range(n_colourful, colour, rgb):
    colours = np.full((40, 25, 3), 90, np.uint8)
    colours.reshape(-1, 3)[:n_colourful] = rgb
    assert quality.tones(np.zeros((2, 2), np.uint8), colours).colour == colour


def test_entropy_is_in_bits():
    black = np.zeros((2, 2, 3), np.uint8)
    levels = np.repeat(np.array([0, 80, 160, 255], np.uint8), 25).reshape(10, 10)
    assert quality.tones(levels, black).entropy == pytest.approx(2.0)
    assert quality.tones(np.full((9, 9), 255, np.uint8), black).entropy == 0.0


@pytest.mark.parametrize("corners", [(611, 307, 1207, 1511), (300, 1000, 1500, 1090)])
def test_the_content_box_is_refined_at_full_resolution(corners):
    """All four sides are more accurate than one pixel of the reduced image."""
    left, top, right, bottom = corners
    pixels = np.full((2400, 1800, 3), 250, np.uint8)
    pixels[top:bottom, left:right] = 30, 60, 90
    box = quality.content_box(pixels, images.reduced(pixels, 192))
    margins = [left - box[0], top - box[1], box[2] - right, box[3] - bottom]
    assert margins == pytest.approx([11] * 4, abs=2)


def test_content_sharpness_hardly_depends_on_the_contrast():
    grey = quality.to_grey(np.asarray(_pack(0)))
    pale = (128 + (grey.astype(int) - 128) // 2).astype(np.uint8)
    full, half = (quality.sharpness(one, one) for one in (grey, pale))
    assert 0.7 < half.content / full.content < 1
    assert half.plain / full.plain == pytest.approx(0.25, rel=0.05)


def test_the_content_box_includes_thin_parts():
    pixels = np.full((2400, 1800, 3), 250, np.uint8)
    pixels[900:1600, 600:1200] = 30, 60, 90
    pixels[400:900, 880:906] = 30, 60, 90
    assert quality.content_box(pixels, images.reduced(pixels, 192)) == pytest.approx((589, 389, 1211, 1611), abs=2)


def test_content_may_touch_the_border():
    pixels = np.full((2400, 1800, 3), 250, np.uint8)
    pixels[900:, 600:1400] = 30, 60, 90
    assert quality.content_box(pixels, images.reduced(pixels, 192)) == pytest.approx((587, 887, 1413, 2400), abs=2)
