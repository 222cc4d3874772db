"""Foreground segmentation finds drawn products on every background, and gives a reason if it cannot."""

import csv
import io
import random
import sys
import types
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from skincare.cleaning import foreground
from skincare.cleaning.foreground import NoProductError, segment_product
from skincare.errors import MissingInputError
from skincare.images import decode
from skincare.paths import REPOSITORY
from skincare.sample import drawing
from tests.dataset_helpers import jpeg


def drawn(seed: int, background: str, **packaging) -> tuple[Image.Image, np.ndarray]:
    """Return a drawn pack as a decoded JPEG, and its true mask."""
    rng = random.Random(seed)
    pack = replace(drawing.random_packaging(rng), **packaging)
    view = replace(drawing.random_view(rng), background=background, size=0.8, shift_x=0.0, shift_y=0.0)
    one = drawing.draw(pack, view, 480, "BRAND")
    return decode(jpeg(one.image)), np.asarray(one.mask) > 0


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("background", drawing.BACKGROUNDS)
def test_the_product_is_found_whole_on_every_background(background):
    overlaps = []
    for seed in range(3):
        image, truth = drawn(seed, background)
        found = segment_product(image)
        overlaps.append(overlap(found.alpha > 127, truth))
        left, top, right, bottom = Image.fromarray(truth).getbbox()
        missing = max(found.box[0] - left, found.box[1] - top, right - found.box[2], bottom - found.box[3])
        assert missing <= 0.08 * max(right - left, bottom - top), "within the default margin of crop.py"
        assert found.confidence > 0.8
    assert np.mean(overlaps) > 0.93
    assert min(overlaps) > 0.85


def test_an_image_with_an_uncertain_outline_is_not_cropped():
    image, _ = drawn(3, "white", container="tube", body_colour="white", cap_colour="white", label="band")
    with pytest.raises(NoProductError, match="edges_left_out"):
        segment_product(image)


def test_marked_crops_of_real_photos(real_data):
    """Of marked photos, 26 of 29 complete crops are made, 1 of 7 scenes, and none that loses part of the product."""
    cropped: dict[str, list[bool]] = defaultdict(list)
    for row in csv.DictReader((REPOSITORY / "benchmarks" / "crop_marks.csv").open(encoding="utf-8")):
        try:
            found = segment_product(decode((real_data / row["file"]).read_bytes()))
        except NoProductError:
            found = None
        cropped[row["verdict"]].append(found is not None)
    counts = {verdict: (sum(one), len(one)) for verdict, one in cropped.items()}
    assert counts == {"complete": (26, 29), "loses_part": (0, 4), "scene": (1, 7)}


@pytest.mark.parametrize("container", ["jar", "bottle"])
def test_a_white_pack_on_white_has_no_holes_in_its_mask(container):
    image, truth = drawn(3, "white", container=container, body_colour="white", cap_colour="white", label="band")
    assert overlap(segment_product(image).alpha > 127, truth) > 0.8


def test_the_shadow_is_background():
    image, truth = drawn(5, "white", container="bottle", body_colour="blue")
    shadow = (np.asarray(image).min(axis=2) < 235) & ~truth
    assert shadow.sum() > 1000
    assert (segment_product(image).alpha[shadow] < 127).mean() > 0.75


def test_the_outline_does_not_depend_on_earlier_images():
    image, _ = drawn(7, "gradient")
    first = segment_product(image).alpha
    segment_product(drawn(8, "table")[0])
    assert np.array_equal(segment_product(image).alpha, first)


def scene() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8))


def filled() -> Image.Image:
    """Return a pack that is cut by the upper and the lower edge of the frame."""
    image = Image.new("RGB", (400, 400), (255, 255, 255))
    ImageDraw.Draw(image).rectangle((125, 0, 274, 399), fill=(30, 60, 90))
    return image


def pale_cap() -> Image.Image:
    """Return a blue bottle whose white cap is visible only by its vertical edges."""
    image = Image.new("RGB", (400, 400), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle((140, 170, 260, 370), fill=(40, 70, 160))
    for x in (150, 170, 230, 250):
        draw.line((x, 60, x, 150), fill=(225, 225, 228), width=3)
    return image


REASONS = {
    "edges_left_out": pale_cap(),
    "too_small": Image.new("RGB", (1, 1), (9, 9, 9)),
    "nothing_stands_out": Image.new("RGB", (400, 300), (255, 255, 255)),
    "no_plain_background": scene(),
    "cut_by_the_frame": filled(),
}


@pytest.mark.parametrize("reason", REASONS)
def test_an_image_without_a_clear_product_has_a_reason(reason):
    with pytest.raises(NoProductError) as raised:
        segment_product(REASONS[reason])
    assert raised.value.reason == reason


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (5000, 40), (23, 23), (24, 24), (3, 2000)])
def test_extreme_shapes_give_a_product_or_a_reason(size):
    image = Image.new("RGB", size, (250, 250, 250))
    ImageDraw.Draw(image).rectangle((size[0] // 3, size[1] // 3, size[0] // 2, size[1] // 2), fill=(200, 30, 30))
    try:
        found = segment_product(image)
    except NoProductError:
        return
    assert found.alpha.shape == (size[1], size[0])


def test_the_first_frame_of_an_animation_is_used():
    image, truth = drawn(2, "white")
    buffer = io.BytesIO()
    image.save(buffer, "GIF", save_all=True, append_images=[scene().resize(image.size)])
    assert overlap(segment_product(decode(buffer.getvalue())).alpha > 127, truth) > 0.85


def test_rembg_is_used_if_installed(monkeypatch):
    image, truth = drawn(1, "table")
    alpha = Image.fromarray(truth.astype(np.uint8) * 255)
    fake = types.SimpleNamespace(new_session=lambda: "u2net", remove=lambda one, only_mask, session: alpha)
    monkeypatch.setitem(sys.modules, "rembg", fake)
    foreground._rembg_session.cache_clear()
    found = foreground.METHODS["rembg"](image)
    assert found.box == alpha.getbbox()
    assert found.confidence == 1
    foreground._rembg_session.cache_clear()


def test_missing_rembg_is_an_error_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    foreground._rembg_session.cache_clear()
    with pytest.raises(MissingInputError, match=r'pip install "rembg\[cpu\]"'):
        foreground.METHODS["rembg"](scene())
