"""Formats, truncation and damaged JPEG data as the bytes of a file state them."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from skincare import file_formats, images
from skincare.file_formats import FORMATS, sniff_format
from tests.helpers import noise_image

SMOOTH = noise_image(60, 60).resize((800, 800), Image.Resampling.BICUBIC)
KINDS = {
    "baseline": (SMOOTH, {}),
    "progressive": (SMOOTH, {"progressive": True}),
    "restart_markers": (SMOOTH, {"restart_marker_rows": 1}),
    "grey": (SMOOTH.convert("L"), {}),
    "cmyk": (SMOOTH.convert("CMYK"), {}),
    "rotated": (SMOOTH, {"exif": Image.Exif()}),
}
KINDS["rotated"][1]["exif"][0x0112] = 6


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(content: bytes) -> str:
    with pytest.raises(images.BrokenImageError) as caught:
        images.decode(content)
    return caught.value.reason


@pytest.fixture(params=KINDS)
def jpeg(request):
    image, options = KINDS[request.param]
    return saved(image, quality=85, **options)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_recognised_by_its_first_bytes(kind):
    assert sniff_format(saved(Image.new("RGB", (30, 20)), kind)) == kind


def test_a_jpeg_cut_in_its_middle_and_closed_with_an_end_marker_is_corrupt(jpeg):
    assert reason(jpeg[: len(jpeg) // 2] + b"\xff\xd9") == "corrupt"


def test_a_jpeg_with_zeros_in_its_middle_is_corrupt(jpeg):
    damaged = bytearray(jpeg)
    damaged[len(jpeg) // 2 : len(jpeg) // 2 + 4096] = bytes(4096)
    assert reason(bytes(damaged)) == "corrupt"


def test_a_jpeg_without_its_second_half_is_truncated(jpeg):
    assert reason(jpeg[: len(jpeg) // 2]) == "truncated"


def test_bytes_that_are_no_image_data_are_harmless(jpeg):
    expected = np.asarray(images.decode(jpeg))
    for content in (jpeg[:-2] + bytes(50) + jpeg[-2:], jpeg + b"trailing", jpeg[:-2] + b"\xff" * 9 + jpeg[-2:]):
        assert np.array_equal(np.asarray(images.decode(content)), expected)


def test_junk_in_the_header_is_harmless():
    content = saved(SMOOTH, quality=85, comment=b"x" * 40)
    place = content.index(b"\xff\xfe")
    junk = content[: place + 2] + b"\x00\x12" + content[place + 4 :]
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(junk)
    assert file_formats.jpeg_damage(junk) == ""


def test_no_real_jpeg_is_damaged_and_every_real_jpeg_with_half_of_its_data_is(real_data):
    n = 0
    for folder in ("photos", "pairs"):
        for path in sorted((real_data / folder).rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            if sniff_format(content) == "JPEG":
                n += 1
                assert not file_formats.jpeg_damage(content), path.name
                assert file_formats.jpeg_damage(content[: len(content) // 2] + b"\xff\xd9"), path.name
    assert n == 112


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_webp_or_avif_is_truncated(kind, share):
    content = saved(SMOOTH, kind)
    assert reason(content[: round(share * len(content))]) == "truncated"


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_a_damaged_webp_or_avif_of_full_length_is_corrupt(kind):
    content = bytearray(saved(SMOOTH, kind))
    content[24:400] = bytes(376)
    assert reason(bytes(content)) == "corrupt"


def test_a_jpeg_that_ends_in_its_header_is_truncated():
    content = saved(SMOOTH)
    for end in (30, content.index(b"\xff\xda") - 5):
        assert reason(content[:end]) == "truncated"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\x0a" + bytes(40),
        b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a" + bytes(40),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made by hand -->\n<!DOCTYPE svg PUBLIC "x" "y">\n<svg>',
        b"<!-- " + b"x" * 900 + b" --><SVG width='3'>",
        b"\x00\x00\x00\x18ftypheic" + bytes(40),
        saved(SMOOTH.quantize(16), "PCX"),
        saved(SMOOTH, "SGI"),
        saved(SMOOTH, "PPM"),
        saved(SMOOTH.resize((32, 32)), "ICO"),
        b"\x1e\x00\x00\x00\x11\xaf" + bytes(60),
        b"\x1e\x00\x00\x00\x12\xaf" + bytes(60),
        b"8BPS" + bytes(40),
    ],
)
def test_an_image_of_another_format_is_called_unsupported(content):
    assert reason(content) == "unsupported_format"


@pytest.mark.parametrize(
    "content",
    [
        b"<html><body><svg></svg></body></html>",
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b"P5 is the name of this product\n",
        b"\n{}",
        b"\x0a\x01\x01\x08",
        b"svg",
    ],
)
def test_what_only_resembles_a_format_is_not_an_image(content):
    assert reason(content) == "not_an_image"
