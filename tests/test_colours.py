"""Colours come out as the file's profile means them; a profile that makes no sense changes nothing."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from skincare.images import decode, decode_with_notes
from tests.helpers import noise_image

# Colourants in the D50 connection space and gamma of Adobe RGB (1998). Source: Adobe RGB (1998) Color Image Encoding.
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def _fixed(value):
    return struct.pack(">i", round(value * 65536))


def _profile(colourants=ADOBE, gamma=2.19921875, white=(0.9642, 1.0, 0.8249), space=b"RGB "):
    """A matrix profile of version 2, written here: none is free to be stored."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    xyz = lambda values: b"XYZ " + bytes(4) + b"".join(map(_fixed, values))  # noqa: E731
    text = b"test profile\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    described += bytes(-len(described) % 4)
    tags = {b"desc": described, b"wtpt": xyz(white)}
    tags |= {name: xyz(one) for name, one in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colourants, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content
    head = struct.pack(">I4sI4s4s4s", 0, bytes(4), 0x02100000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(map(_fixed, (0.9642, 1.0, 0.8249)))
    content = head.ljust(128, b"\0") + table + data
    return struct.pack(">I", len(content)) + content[4:]


def _png(image, profile):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


def test_adobe_rgb_becomes_srgb():
    """(200, 100, 80) in Adobe RGB is more saturated in sRGB; worked out by the matrices, not by the library."""
    image = decode_with_notes(_png(Image.new("RGB", (4, 4), (200, 100, 80)), _profile()))
    assert image.notes == ("profile_applied",)
    linear = (np.array([200, 100, 80]) / 255) ** 2.19921875
    srgb_to_xyz = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    shown = np.clip(np.linalg.solve(srgb_to_xyz, np.array(ADOBE).T @ linear), 0, 1)
    expected = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055) * 255
    assert np.abs(image.pixels[1, 1].astype(int) - expected).max() <= 2
    assert image.pixels[1, 1, 0] > 215


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_white_stays_white_in_every_mode(mode):
    assert decode(_png(Image.new(mode, (4, 4), "white"), _profile())).getpixel((1, 1)) == (255, 255, 255)


def test_srgb_changes_no_pixel():
    image = noise_image(20, 20)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    decoded = decode_with_notes(_png(image, profile))
    assert decoded.notes == ()
    assert np.array_equal(decoded.pixels, np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"garbage"),
        ("RGB", _profile()[:200]),
        ("RGB", _profile(space=b"CMYK")),
        ("L", _profile()),
        ("RGB", _profile(colourants=tuple(tuple(0.3 * value for value in one) for one in ADOBE))),
    ],
    ids=["garbage", "cut_off", "other_space", "colour_for_grey", "white_is_grey"],
)
def test_a_profile_that_makes_no_sense_is_ignored(mode, profile):
    image = noise_image(20, 20).convert(mode)
    decoded = decode_with_notes(_png(image, profile))
    assert decoded.notes == ("profile_ignored",)
    assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB")))


def test_a_huge_profile_is_not_parsed():
    buffer = io.BytesIO()
    noise_image(20, 20).save(buffer, "JPEG", icc_profile=_profile() + bytes(5_000_000))
    assert decode_with_notes(buffer.getvalue()).notes == ("profile_ignored",)


def test_an_alpha_channel_that_hides_nothing_is_not_called_transparent():
    assert decode_with_notes(_png(noise_image(9, 9).convert("RGBA"), None)).notes == ()
