"""The one decoder of the pipeline: bytes that others made in, an upright RGB image or a reason out.

Scraper, cleaning, training and prediction all see an image as `decode` gives it, so none of them can disagree about
rotation, transparency or whether a file is broken. PIL's `load` notices a truncated JPEG, which `PIL.Image.verify`
passes and OpenCV fills up with grey. Nearly all images are JPEGs that need nothing done to them: those go straight
into an array by the same libjpeg-turbo without PIL's detour over four bytes a pixel, and to PIL only where that so much
as warns, so that what is refused, and why, does not depend on it.
"""

import io
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from skincare import colours, file_formats
from skincare.file_formats import FORMATS, sniff_format

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3), sRGB, or (H, W) where a name speaks of grey."""

Reason = Literal["empty", "not_an_image", "unsupported_format", "too_many_pixels", "truncated", "corrupt"]

# What the decoder found and corrected, in addition to the notes of skincare.colours.
Note = Literal["animated", "rotated"] | colours.Note

# Eight times a 2,500 x 2,500 packshot; a header that promises more is a mistake or a decompression bomb.
MAX_PIXELS: Final = 50_000_000


class BrokenImageError(ValueError):
    """The bytes are no image that can be used; `reason` is one word for a table."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: Reason = reason


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image with its true format, one of FORMATS, and what had to be done to it."""

    pixels: Pixels
    format: str
    notes: tuple[Note, ...]


def decode(content: bytes) -> Image.Image:
    """Return the image upright, on white where it is transparent, as 8-bit sRGB; of an animation the first frame.

    Raises BrokenImageError.
    """
    return Image.fromarray(decode_with_notes(content).pixels)


def decode_with_notes(content: bytes) -> DecodedImage:
    """Return the pixels of `decode` as an array with format and notes; raises BrokenImageError."""
    opened = _open(content)
    pixels = _plain_jpeg(opened, content)
    if pixels is not None:
        return DecodedImage(pixels, "JPEG", ())
    try:
        notes: tuple[Note, ...] = ("animated",) if _is_animated(opened) else ()
        opened.load()
        _check_jpeg_data(opened, content)
        image = _upright(opened)
        notes += ("rotated",) if image is not opened else ()
        image, done = colours.to_srgb_on_white(image)
        return DecodedImage(np.asarray(image), opened.format or "", notes + done)
    except BrokenImageError:
        raise
    except OSError as error:
        reason: Reason = "truncated" if _reports_truncation(error) else "corrupt"
        raise BrokenImageError(reason, str(error)) from error
    except Exception as error:
        # Decoders let whatever their parser stumbles over through: ValueError, SyntaxError, struct.error, IndexError,
        # ZeroDivisionError, MemoryError ... . All of them say that these bytes are no good.
        raise BrokenImageError("corrupt", f"{type(error).__name__}: {error}") from error


def displayed_size(content: bytes) -> tuple[int, int]:
    """Return width and height of the upright image from its header alone; raises BrokenImageError."""
    image = _open(content)
    width, height = image.size
    # PIL gives the size of a TIFF as displayed already.
    is_turned = image.format != "TIFF" and _orientation(image) >= 5
    return (height, width) if is_turned else (width, height)


def halved(pixels: Pixels) -> Pixels:
    """Return the means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    whole = pixels[: 2 * height, : 2 * width]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def reduced(pixels: Pixels, side_px: int) -> Pixels:
    """Return the image halved as often as its longer side stays at least `side_px`."""
    while max(pixels.shape[:2]) >= 2 * side_px and min(pixels.shape[:2]) > 1:
        pixels = halved(pixels)
    return pixels


def encode_jpeg(image: Image.Image) -> bytes:
    """Return an RGB image as JPEG, hardly compressed: it is the new original. The same image, the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling="4:4:4", optimize=True)
    return buffer.getvalue()


def _open(content: bytes) -> Image.Image:
    """Read the header; nothing is decoded yet."""
    if not content:
        raise BrokenImageError("empty")
    announced = sniff_format(content)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BrokenImageError("too_many_pixels", str(error)) from error
    except Exception as error:
        # See decode_with_notes: there is no list of what a parser may raise.
        if file_formats.is_truncated(content):
            raise BrokenImageError("truncated", f"{announced} file shorter than its header says") from error
        if announced:
            raise BrokenImageError("corrupt", f"unreadable {announced} header") from error
        is_image = file_formats.is_unsupported_format(content)
        raise BrokenImageError("unsupported_format" if is_image else "not_an_image") from error
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImageError("too_many_pixels", f"{image.width} x {image.height}")
    if not image.width or not image.height:
        raise BrokenImageError("corrupt", "no pixels")
    return image


def _plain_jpeg(opened: Image.Image, content: bytes) -> Pixels | None:
    """Return the pixels of a JPEG in which nothing has to be turned, converted or forgiven; None for all others."""
    try:
        is_plain = opened.format == "JPEG" and colours.is_srgb(opened) and _orientation(opened) == 1
        # A second header could promise more pixels than the one that was checked.
        if not is_plain or simplejpeg.decode_jpeg_header(content)[:2] != (opened.height, opened.width):
            return None
        return simplejpeg.decode_jpeg(content, "RGB")
    except Exception:
        # See decode_with_notes: there is no list of what a parser may raise. PIL gives the reason.
        return None


def _check_jpeg_data(opened: Image.Image, content: bytes) -> None:
    """Raise BrokenImageError for a JPEG whose damaged image data PIL fills in silently."""
    if opened.format in ("JPEG", "MPO"):
        damage = file_formats.jpeg_damage(content, is_cmyk=opened.mode == "CMYK")
        if damage:
            raise BrokenImageError("corrupt", damage)


def _reports_truncation(error: OSError) -> bool:
    message = str(error).lower()
    return any(word in message for word in ("truncated", "unexpected end", "incomplete", "not processed"))


def _is_animated(image: Image.Image) -> bool:
    """Tell whether there is more than one frame; the pages of a TIFF and a phone's second JPEG are no animation."""
    return image.format in ("GIF", "PNG", "WEBP", "AVIF") and bool(getattr(image, "is_animated", False))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or the EXIF block itself is broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        # Broken EXIF raises UnicodeDecodeError, ZeroDivisionError, TypeError and more; the pixels are still good.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image.Image) -> Image.Image:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def is_plain_jpeg(content: bytes) -> bool:
    """Return whether every decoder shows these bytes alike: an upright RGB JPEG, no profile that changes a colour.

    Only the header is read; raises BrokenImageError where it cannot be.
    """
    opened = _open(content)
    return opened.format == "JPEG" and colours.is_srgb(opened) and _orientation(opened) == 1
