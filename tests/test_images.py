"""The one decoder: right pixels for every odd but valid file, a reason for every broken one."""

import csv
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from skincare import images
from skincare.file_formats import FORMATS
from skincare.images import (
    MAX_PIXELS,
    BrokenImageError,
    decode,
    decode_with_notes,
    displayed_size,
    encode_jpeg,
)
from tests.helpers import noise_image


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _rows(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


def _reason(content: bytes) -> str:
    with pytest.raises(BrokenImageError) as caught:
        decode(content)
    return caught.value.reason


def _pixel(content: bytes, x: int = 5, y: int = 5) -> tuple[int, ...]:
    return decode(content).getpixel((x, y))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_decoded(kind):
    content = _saved(Image.new("RGB", (30, 20), (200, 30, 60)), kind)
    image = decode(content)
    assert (image.mode, image.size) == ("RGB", (30, 20))
    assert np.abs(np.array(image.getpixel((9, 9))) - (200, 30, 60)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_by_pil_itself(orientation):
    image = noise_image(16, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _saved(image, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(np.asarray(decode(content)), np.asarray(expected))
    assert displayed_size(content) == expected.size


def test_transparent_pixels_are_white():
    image = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert _pixel(_saved(image, "PNG")) == (255, 255, 255)
    palette = Image.new("RGB", (10, 10), (255, 0, 0)).quantize(4)
    red = palette.getpixel((5, 5))
    assert _pixel(_saved(palette, "PNG")) == (255, 0, 0)
    assert _pixel(_saved(palette, "PNG", transparency=red)) == (255, 255, 255)


def test_half_transparent_pixels_are_half_white():
    content = _saved(Image.new("RGBA", (10, 10), (0, 0, 0, 128)), "PNG")
    assert all(126 <= channel <= 128 for channel in _pixel(content))


def test_sixteen_bits_are_scaled_and_not_cut_off():
    values = np.full((10, 10), 32768, dtype=np.uint16)
    assert _pixel(_saved(Image.fromarray(values), "PNG")) == (128, 128, 128)


def test_cmyk_becomes_rgb():
    content = _saved(Image.new("CMYK", (10, 10), (0, 255, 255, 0)), "JPEG")
    red, green, blue = _pixel(content)
    assert red > 230 and green < 30 and blue < 30


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_truncated(kind):
    content = _saved(noise_image(200, 200), kind)
    assert _reason(content[: len(content) * 2 // 3]) == "truncated"


def test_a_cut_off_jpeg_is_called_truncated_where_pil_verify_and_opencv_see_nothing():
    content = _saved(noise_image(300, 300), "JPEG")
    assert _reason(content[: len(content) * 3 // 4]) == "truncated"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<!doctype html><html><body>Not found</body></html>", "not_an_image"),
        (b"\r\n  <html>", "not_an_image"),
        (b'{"error": 404}', "not_an_image"),
        (b"version https://git-lfs.github.com/spec/v1", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), "unsupported_format"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "corrupt"),
    ],
)
def test_what_is_no_image_has_a_reason(content, reason):
    assert _reason(content) == reason


def test_a_header_that_promises_too_many_pixels_is_not_decoded():
    side = int(MAX_PIXELS**0.5) + 10
    content = _saved(Image.new("1", (side, side)), "PNG")
    assert len(content) < 50_000
    assert _reason(content) == "too_many_pixels"


def test_a_reason_is_the_same_each_time():
    messages = set()
    for _ in range(2):
        with pytest.raises(BrokenImageError) as caught:
            decode(b"<html>")
        messages.add(str(caught.value))
    assert len(messages) == 1


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]))
def test_any_bytes_are_decoded_or_refused_with_a_reason(tail, head):
    try:
        image = decode(head + tail)
    except BrokenImageError as error:
        assert error.reason
    else:
        assert image.mode == "RGB"


@given(st.data())
def test_a_damaged_jpeg_is_decoded_or_refused_with_a_reason(data):
    content = bytearray(_saved(noise_image(24, 24), "JPEG"))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(content)).mode == "RGB"
    except BrokenImageError as error:
        assert error.reason


_PLAIN_JPEGS = {
    "half_colours": {"subsampling": "4:2:0"},
    "all_colours": {"subsampling": "4:4:4"},
    "progressive": {"progressive": True},
    "colours_not_turned": {"keep_rgb": True},
    "with_a_profile": {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
}


@pytest.mark.parametrize("options", _PLAIN_JPEGS.values(), ids=_PLAIN_JPEGS)
@pytest.mark.parametrize("size", [(64, 48), (61, 47), (1, 1)])
def test_a_plain_jpeg_comes_out_as_from_pil(monkeypatch, options, size):
    content = _saved(noise_image(*size), "JPEG", **options)
    fast = images._plain_jpeg(Image.open(io.BytesIO(content)), content)
    assert np.array_equal(fast, decode_with_notes(content).pixels)
    monkeypatch.setattr(images, "_plain_jpeg", lambda *_: None)
    assert np.array_equal(fast, decode_with_notes(content).pixels)


@given(st.data())
def test_a_damaged_jpeg_comes_out_as_from_pil(data):
    """Whatever the fast decoder takes, PIL takes too, and sees the same in it."""
    content = bytearray(_saved(noise_image(40, 24), "JPEG", restart_marker_rows=data.draw(st.sampled_from([0, 1]))))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(len(content) // 2, len(content)))
    _outcome_is_pils(bytes(content[:end]) + data.draw(st.binary(max_size=4)))


def _outcome_is_pils(content):
    def outcome():
        try:
            return decode_with_notes(content).pixels.tolist()
        except BrokenImageError as error:
            return str(error)

    found = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_plain_jpeg", lambda *_: None)
        assert outcome() == found


def test_what_was_checked_against_the_limit_is_what_is_decoded():
    """Also where a second header promises more pixels than the first."""
    small, huge = (_saved(Image.new("RGB", size), "JPEG") for size in ((16, 16), (16000, 16)))
    assert images._plain_jpeg(Image.open(io.BytesIO(small)), small).shape == (16, 16, 3)
    assert images._plain_jpeg(Image.open(io.BytesIO(small)), huge) is None
    frame, scan = b"\xff\xc0", b"\xff\xda"
    second = huge[huge.index(frame) : huge.index(scan)]
    _outcome_is_pils(small[: small.index(frame)] + second + small[small.index(frame) :])
    _outcome_is_pils(small[: small.index(scan)] + huge[huge.index(frame) :])


def test_encoding_is_reproducible_and_close():
    image = noise_image(64, 48).resize((480, 640))
    content = encode_jpeg(image)
    assert content == encode_jpeg(image)
    assert np.abs(np.asarray(decode(content), dtype=int) - np.asarray(image, dtype=int)).mean() < 2


# What each of the real broken files must be called, by what is wrong with it.
BROKEN_FILES = {
    "apng__syntax_num_frames_zero.png": "corrupt",
    "bmp__b__badheadersize.bmp": "corrupt",
    "bmp__b__badwidth.bmp": "too_many_pixels",
    "bmp__b__shortfile.bmp": "truncated",
    "broken_data_stream.png": "corrupt",
    "decompression_bomb.ico": "unsupported_format",
    "fli_overrun2.bin": "unsupported_format",
    # Not only its EXIF block is bad: every restart interval is decoded to noise.
    "hopper_bad_exif.jpg": "corrupt",
    "hopper_webp.tif": "corrupt",
    "pcx_overrun.bin": "unsupported_format",
    "png_decompression_dos.png": "corrupt",
    "sgi_overrun.bin": "unsupported_format",
    "sgi_overrun_expandrow2.bin": "unsupported_format",
    "truncated_end_chunk.png": "truncated",
    "truncated_jpeg.jpg": "truncated",
    "zero_width.gif": "corrupt",
    "aishwarya23s__hero23.jpg": "not_an_image",
    "Vaibhav08080__coconut-butter.jpg": "not_an_image",
    "16bit.cropped.jp2": "unsupported_format",
}
# And what must be noticed of the odd ones that are read; the others are plain.
ODD_FILES = {
    "12in16bit.tif": ("sixteen_bit",),
    "16bit.MM.deflate.tif": ("sixteen_bit",),
    "16bit.deflate.tif": ("sixteen_bit",),
    "16bit.s.tif": ("sixteen_bit",),
    "apng__blend_op_source_near_transparent.png": ("animated",),
    "apng__mode_16bit.png": ("animated",),
    "avif__transparency.avif": ("transparent",),
    "different_transparency_merged.png": ("transparent",),
    **{f"hopper_orientation_{n}.webp": ("rotated",) for n in range(2, 7)},
}


@pytest.mark.filterwarnings("ignore")
def test_real_broken_files_are_refused_for_what_is_wrong_and_real_odd_ones_are_read(real_data):
    refused, noticed = {}, {}
    for row in _rows(real_data / "broken.csv"):
        path = real_data / row["file"]
        try:
            image = decode_with_notes(path.read_bytes())
        except BrokenImageError as error:
            refused[path.name] = error.reason
        else:
            assert image.pixels.shape[2:] == (3,)
            noticed[path.name] = image.notes
    assert refused == BROKEN_FILES
    assert {name: notes for name, notes in noticed.items() if notes} == ODD_FILES


def test_real_photos_are_all_read(real_data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in _rows(real_data / "photos.csv"):
            assert min(decode((real_data / row["file"]).read_bytes()).size) > 10
