"""From the pixels of any decoded file to the 8-bit sRGB on white that models and eyes expect.

Without its profile an Adobe RGB image is dull and a CMYK image garish. A profile is applied when it can
be read, fits the pixels, leaves white white and moves any colour at all: the sRGB that most files carry does not.
"""

import io
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageCms

Note = Literal["transparent", "cmyk", "sixteen_bit", "profile_applied", "profile_ignored"]

# Profiles of printers reach 2 MB; a larger one is a mistake or an attack on its parser.
_MAX_PROFILE_BYTES: Final = 4_000_000
# In grey levels: what rounding makes of a profile that is sRGB under some name, and the darkest white there may be.
_UNMOVED: Final = 2
_MIN_WHITE: Final = 235
_SPACES: Final = {"L": "GRAY", "RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK"}

Conversion = ImageCms.ImageCmsTransform | Literal["needless", "useless"]


def to_srgb_on_white(image: Image.Image) -> tuple[Image.Image, tuple[Note, ...]]:
    """Return a loaded image as RGB, with white behind what is transparent, and what had to be done to it."""
    notes: list[Note] = []
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
        notes.append("sixteen_bit")
    if image.mode == "CMYK":
        notes.append("cmyk")
    is_transparent = image.has_transparency_data
    if is_transparent:
        image = image.convert("RGBA")
        # An alpha channel that hides nothing is a habit of the program that saved the file.
        is_transparent = image.getchannel("A").getextrema() != (255, 255)
    image, applied = _apply_profile(image)
    if is_transparent:
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
        notes.append("transparent")
    return image if image.mode == "RGB" else image.convert("RGB"), (*notes, *applied)


def is_srgb(image: Image.Image) -> bool:
    """Return whether `to_srgb_on_white` leaves an image unchanged, by its header and profile."""
    profile = image.info.get("icc_profile")
    is_plain = image.mode == "RGB" and not image.has_transparency_data
    return is_plain and (not profile or _conversion(profile, "RGB") == "needless")


def _apply_profile(image: Image.Image) -> tuple[Image.Image, tuple[Note, ...]]:
    profile = image.info.get("icc_profile")
    if not profile:
        return image, ()
    if image.mode not in _SPACES:
        image = image.convert("RGB")
    conversion = _conversion(profile, image.mode)
    if conversion == "needless":
        return image, ()
    converted = None if isinstance(conversion, str) else ImageCms.applyTransform(image, conversion)
    return (image, ("profile_ignored",)) if converted is None else (converted, ("profile_applied",))


@lru_cache(maxsize=64)
def _conversion(profile: bytes, mode: str) -> Conversion:
    """Return what turns pixels of this profile and mode into sRGB, or why nothing should."""
    if len(profile) > _MAX_PROFILE_BYTES:
        return "useless"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return "useless"
        target_mode = mode if mode in ("RGB", "RGBA") else "RGB"
        conversion = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, target_mode)
        probe = _probe(mode)
        moved = np.asarray(ImageCms.applyTransform(probe, conversion).convert("RGB")).astype(int)  # type: ignore[union-attr]
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "useless"
    if moved[0, 0].min() < _MIN_WHITE:
        return "useless"
    is_moved = np.abs(moved - np.asarray(probe.convert("RGB"))).max() > _UNMOVED
    return conversion if is_moved else "needless"


def _probe(mode: str) -> Image.Image:
    """Return a small image whose first pixel is white and whose others span the colours of a mode."""
    if mode == "CMYK":
        return Image.new("CMYK", (2, 2), (0, 0, 0, 0))
    levels = np.linspace(255, 0, 6).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(6, 36, 3)
    return Image.fromarray(grid).convert(mode)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 16 or 32 bits a pixel as 8-bit grey; PIL's own conversion cuts off instead of scaling."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    # 16-bit files use their whole range; for others only their own range is known.
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (float(values.min()), float(values.max()))
    return Image.fromarray(np.round((values - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8))
