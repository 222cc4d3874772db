"""Every check detects its defect, can be switched on and off, and reports its value and threshold."""

import csv
import dataclasses
import io
from collections import Counter
from typing import get_args

import numpy as np
import pytest
import tyro
from PIL import Image, ImageFilter

import clean
from skincare.cleaning import checks, inspection
from skincare.errors import StageError
from tests.dataset_helpers import jpeg, pack


def _saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(pack(1), "JPEG", exif=exif)


def _transparent():
    image = pack(1).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 128))
    return _saved(image, "PNG")


SIXTEEN_BITS = Image.fromarray(np.asarray(pack(1).convert("L")).astype(np.uint16) * 257)
FRAMES = [pack(1).convert("P"), pack(2).convert("P")]
BAD = {
    "too_small": jpeg(pack(1, 120)),
    "odd_shape": jpeg(pack(1).resize((1500, 320))),
    "blurred": jpeg(pack(1).filter(ImageFilter.GaussianBlur(10))),
    "blurred_frame": jpeg(pack(1).filter(ImageFilter.GaussianBlur(10))),
    "dark": jpeg(pack(1).point(lambda value: value // 8)),
    "overexposed": jpeg(pack(1).point(lambda value: 240 + value // 16)),
    "low_information": jpeg(Image.new("RGB", (400, 400), (90, 120, 160))),
    "greyscale": jpeg(pack(1).convert("L")),
    "animated": _saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "rotated": _rotated(),
    "transparent": _transparent(),
    "cmyk": _saved(pack(1).convert("CMYK"), "JPEG"),
    "sixteen_bit": _saved(SIXTEEN_BITS, "PNG"),
    "profile_ignored": _saved(pack(1), "JPEG", icc_profile=b"no profile"),
}


def _metrics(content):
    return inspection.measure(content)[0]


@pytest.mark.parametrize("reason", BAD)
def test_each_check_rejects_its_defect_and_no_good_pack(reason):
    alone = checks.choose("content", {}, only=(reason,))
    failing = alone.failing(_metrics(BAD[reason]))
    assert failing and failing.reason == reason
    assert alone.failing(_metrics(jpeg(pack(1)))) is None
    assert checks.choose("content", {}, only=(reason,), skip=(reason,)).failing(_metrics(BAD[reason])) is None


def test_every_image_check_is_listed_once_with_an_explanation():
    assert Counter(check.reason for check in checks.CHECKS) == Counter(get_args(checks.ImageReason))
    reasons = (*get_args(checks.FileReason), *get_args(checks.ImageReason), *get_args(checks.DuplicateReason))
    assert all(checks.meaning(reason) for reason in reasons)


def test_images_that_the_decoder_corrects_are_kept_by_default():
    choice = checks.choose("content", {})
    for reason in ("animated", "rotated", "transparent", "cmyk", "sixteen_bit", "greyscale", "profile_ignored"):
        assert choice.failing(_metrics(BAD[reason])) is None, reason


def test_thresholds_can_be_set_and_unknown_names_are_errors():
    metrics = _metrics(jpeg(pack(1)))
    side = max(metrics.box[2] - metrics.box[0], metrics.box[3] - metrics.box[1])
    assert checks.choose("content", {"too_small": side + 1}).failing(metrics).reason == "too_small"
    assert checks.choose("content", {"too_small": side}).failing(metrics) is None
    with pytest.raises(StageError, match="no check is called sharpness"):
        checks.choose("content", {"sharpness": 1})


def test_also_adds_checks_and_only_replaces_them():
    assert "greyscale" in checks.choose("content", {}, also=("greyscale",)).on
    assert checks.choose("content", {}, only=("dark",)).on == {"dark"}
    assert checks.choose("reference", {}).on == {"too_small", "blurred_frame", "equal_reference_hash"}


def on_canvas(image, width, height):
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return jpeg(canvas)


def test_the_size_check_uses_the_product_and_not_the_frame():
    content, reference = checks.choose("content", {}), checks.choose("reference", {})
    small_on_large = _metrics(on_canvas(pack(1, 400).resize((76, 76)), 300, 300))
    large_on_narrow = _metrics(on_canvas(pack(1, 400).crop((130, 0, 270, 400)), 150, 450))
    assert content.failing(small_on_large).reason == "too_small"
    assert content.failing(large_on_narrow) is None
    assert reference.check("too_small").fails(large_on_narrow)
    assert not reference.check("too_small").fails(small_on_large)


def test_no_real_photo_is_too_small(real_data):
    check = checks.choose("content", {}).check("too_small")
    rows = list(csv.DictReader((real_data / "photos.csv").read_text(encoding="utf-8").splitlines()))
    small = [row for row in rows if min(int(row["width"]), int(row["height"])) < 300]
    assert len(small) == 32, "a threshold of 300 px on the frame would reject these"
    assert not any(check.fails(_metrics((real_data / row["file"]).read_bytes())) for row in small)


def test_drawn_and_pale_packs_pass():
    choice = checks.choose("content", {})
    for seed in range(20):
        image = pack(seed)
        for content in (jpeg(image), jpeg(image.point(lambda value: 128 + value // 2))):
            failing = choice.failing(_metrics(content))
            assert failing is None, (seed, failing)


@pytest.mark.slow
def test_no_real_photo_fails(real_data):
    choice = checks.choose("content", {})
    rows = csv.DictReader((real_data / "photos.csv").read_text(encoding="utf-8").splitlines())
    found = [choice.failing(_metrics((real_data / row["file"]).read_bytes())) for row in rows]
    assert not any(found)
    assert len(found) == 192


def test_metrics_are_computed_on_the_upright_image():
    metrics = _metrics(_rotated())
    plain = _metrics(_saved(pack(1).transpose(Image.Transpose.ROTATE_270), "PNG"))
    assert metrics.box == pytest.approx(plain.box, abs=4)
    assert dataclasses.replace(metrics, notes=()).width == plain.width


def test_shared_by_is_a_known_reason_and_unknown_ones_have_no_meaning():
    assert checks.choose("content", {}, shared_by=7).shared_by == 7
    assert checks.meaning("no_such_reason") == ""


def test_thresholds_keep_the_old_name_of_their_option():
    found = [tyro.cli(clean.Config, args=[name, "dark", "40"]).thresholds for name in ("--thresholds", "--limits")]
    assert found == [{"dark": 40.0}] * 2
