"""What the bytes of an image file say before anything is decoded: its format, whether its end is missing, its damage.

`skincare.images` decodes; here are the formats that it reads, those that it refuses by name, and the checks of a
container's own lengths, which distinguish a truncated file from a damaged one.
"""

import re
from typing import Final

import simplejpeg

# What shops serve. Every further format is one more parser that hostile bytes can reach.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")

# File name suffixes of these formats; the format itself is read from the first bytes.
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"})

_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
)
# Image formats that other programs show, as (offset, first bytes).
_UNSUPPORTED: Final[tuple[tuple[int, bytes], ...]] = (
    (0, b"\x00\x00\x01\x00"),  # ICO
    (0, b"\x00\x00\x00\x0cjP  "),  # JPEG 2000
    (0, b"\xff\x4f\xff\x51"),  # JPEG 2000 code stream
    (0, b"\x00\x00\x00\x0cJXL "),  # JPEG XL
    (0, b"\xff\x0a"),  # JPEG XL code stream
    (4, b"ftyp"),  # HEIF
    (0, b"%!PS"),
    (0, b"8BPS"),  # Photoshop
    (0, b"qoif"),
    (0, b"\x01\xda\x00"),  # SGI, uncompressed
    (0, b"\x01\xda\x01"),  # SGI, run lengths
    (4, b"\x11\xaf"),  # FLI
    (4, b"\x12\xaf"),  # FLC
    (0, b"DDS "),
    (0, b"icns"),
)
# Version, run lengths, bits a pixel.
_PCX: Final = re.compile(rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]")
_PORTABLE_ANYMAP: Final = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)?[0-9]+\s")
# The root element, after a byte order mark, an XML declaration, a document type and comments.
_SVG: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*|<!doctype\s+svg[^>]*>\s*)*<(?:[a-z]+:)?svg[\s>/]",
    re.IGNORECASE | re.DOTALL,
)
_SVG_PROLOG_BYTES: Final = 4096

# libjpeg's warnings about entropy-coded data; those about bytes between segments are harmless.
_SCAN_DAMAGE: Final = re.compile(
    r"premature end of data segment|bad Huffman code|bad arithmetic code|found marker 0x\w+ instead of RST"
)
_SKIPPED_BYTES: Final = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9


def sniff_format(content: bytes) -> str | None:
    """Return which of FORMATS the first bytes announce, whatever the file is called; None for anything else."""
    return next((name for offset, magic, name in _MAGIC if content[offset:].startswith(magic)), None)


def is_unsupported_format(content: bytes) -> bool:
    """Tell an image in a format that is not read from bytes that are no image, such as an error page."""
    if any(content[offset:].startswith(magic) for offset, magic in _UNSUPPORTED):
        return True
    return bool(_PCX.match(content) or _PORTABLE_ANYMAP.match(content) or _SVG.match(content[:_SVG_PROLOG_BYTES]))


def is_truncated(content: bytes) -> bool:
    """Return whether a WebP, AVIF or JPEG file is shorter than the lengths in its header."""
    format_name = sniff_format(content)
    if format_name == "WEBP":
        return 8 + int.from_bytes(content[4:8], "little") > len(content)
    if format_name == "AVIF":
        return _boxes_end(content) > len(content)
    return format_name == "JPEG" and _scan_start(content) is None and _segments_end(content) >= len(content)


def jpeg_damage(content: bytes, *, is_cmyk: bool = False) -> str:
    """Return what libjpeg reports about damaged image data of a JPEG; empty for an intact one.

    Other decoders fill such data with grey or noise. Bytes that the decoder skips in the header, or that pad the end
    of the image, are no damage. At an eighth of the size: only the entropy decoder matters here.
    """
    try:
        simplejpeg.decode_jpeg(content, "CMYK" if is_cmyk else "GRAY", min_height=1, min_width=1, min_factor=8)
    except Exception as error:
        # There is no list of what a decoder may raise; errors other than these warnings are for the caller's decoder.
        message = str(error)
        skipped = _SKIPPED_BYTES.search(message)
        is_damage = _skips_image_data(content, int(skipped[1]), int(skipped[2], 16)) if skipped else False
        return message if is_damage or _SCAN_DAMAGE.search(message) else ""
    return ""


def _skips_image_data(content: bytes, n_skipped: int, marker: int) -> bool:
    """Tell whether the bytes that libjpeg skipped before a marker belong to a scan and are not padding."""
    start = _scan_start(content)
    if start is None:
        return False
    if marker != _END_OF_IMAGE:
        return True
    end = content.rfind(bytes([0xFF, _END_OF_IMAGE]))
    return len(set(content[max(start, end - n_skipped) : end])) > 1


def _scan_start(content: bytes) -> int | None:
    """Return where the first scan begins; None where junk or the end of the file comes before it."""
    place = _segments_end(content)
    is_scan = content[place : place + 2] == bytes([0xFF, _START_OF_SCAN])
    return place if is_scan else None


def _segments_end(content: bytes) -> int:
    """Return where the segments of a JPEG's header end: at its first scan, at junk, or past the end of the file."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != _START_OF_SCAN:
        # Any number of 0xFF may precede a marker.
        place += 1 if content[place + 1] == 0xFF else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place if place + 4 <= len(content) else max(place, len(content))


def _boxes_end(content: bytes) -> int:
    """Return where the last of an ISO media file's boxes ends, by their lengths."""
    place = 0
    while place + 8 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        if size == 1:
            size = int.from_bytes(content[place + 8 : place + 16], "big")
        if size == 0:  # to the end of the file
            return len(content)
        if size < 8:
            return place
        place += size
    return place
