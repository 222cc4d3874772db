"""Inspection of one image: read and decoded once, then its metrics for every check, or a reason for its rejection."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from skincare import image_names, images
from skincare.cleaning import hashes, near_duplicates, quality
from skincare.cleaning.near_duplicates import Fingerprint, Thumbnails
from skincare.cleaning.quality import Box, Sharpness, Tones
from skincare.images import BrokenImageError
from skincare.paths import Layout
from skincare.tables import ImageRow, RejectedRow

# The image is halved until its longer side is just above these: for the thumbnail of the content, to find it, and for
# thumbnail and hashes of the frame. An imagehash of the whole image differs from these by two to three bits of 256 on
# average, and costs as much as decoding.
_HALF_SIDE_PX = 384
_SMALL_SIDE_PX = 192
_TINY_SIDE_PX = 96


@dataclass(frozen=True)
class ImageMetrics:
    """Quality metrics and hashes of a decoded image; hashes and cells are hexadecimal digits.

    format, notes: see skincare.images.DecodedImage. box: of the content, in pixels of the upright image.
    thumbnail_digest: equal for equal pixels. cells: see skincare.cleaning.near_duplicates.cells; empty for an image
    without contrast, which cannot be compared. dhash, phash: 16 x 16 bits. dhash_8x8: the 64-bit difference hash;
    reference_hash: the same as the reference experiment computed it.
    """

    width: int
    height: int
    n_bytes: int
    format: str
    notes: tuple[str, ...]
    box: Box
    sharpness: Sharpness
    tones: Tones
    sha256: str
    thumbnail_digest: str
    cells: str
    dhash: str
    phash: str
    dhash_8x8: str
    reference_hash: str

    def fingerprint(self, thumbnails: Thumbnails) -> Fingerprint:
        """Return the fingerprint for the search for near-duplicates."""
        return Fingerprint(thumbnails, near_duplicates.aspects((self.width, self.height), self.box))


@dataclass(frozen=True)
class Broken:
    """The reason why a file cannot be decoded."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Inspection:
    """An image with its metrics; None and a rejection if it could not be read."""

    row: ImageRow
    metrics: ImageMetrics | None
    rejection: RejectedRow | None


def inspect_file(path: Path) -> tuple[ImageMetrics | Broken, Thumbnails | None]:
    """Return the metrics of an image file, and its thumbnails if it has contrast."""
    try:
        return measure(path.read_bytes())
    except FileNotFoundError:
        return Broken("missing_file"), None
    except OSError as error:
        return Broken("unreadable_file", error.strerror or ""), None
    except BrokenImageError as error:
        return Broken(error.reason, str(error).partition(": ")[2]), None


def decoder_failure(path: Path) -> tuple[Broken, None]:
    """Return the result for a file that crashes or hangs the decoder."""
    return Broken("kills_decoder", path.name), None


def measure(content: bytes) -> tuple[ImageMetrics, Thumbnails | None]:
    """Return the metrics of an image and, if it has contrast, its thumbnails; raises BrokenImageError."""
    image = images.decode_with_notes(content)
    pixels = image.pixels
    height, width = pixels.shape[:2]
    half = images.reduced(pixels, _HALF_SIDE_PX)
    small = images.reduced(half, _SMALL_SIDE_PX)
    tiny = images.reduced(small, _TINY_SIDE_PX)
    box = quality.content_box(pixels, small)
    thumbnails = near_duplicates.thumbnails(tiny, half, _scaled(box, half.shape[1] / width, half.shape[0] / height))
    has_contrast = near_duplicates.has_contrast(thumbnails)
    grey = quality.to_grey(pixels)
    content_grey = quality.content_grey(grey, box)
    hashed = Image.fromarray(quality.to_grey(tiny))
    # The input of both 64-bit hashes.
    rows_of_nine = hashed.resize((9, 8), Image.Resampling.LANCZOS)
    metrics = ImageMetrics(
        width=width,
        height=height,
        n_bytes=len(content),
        format=image.format,
        notes=image.notes,
        box=box,
        sharpness=quality.sharpness(grey, content_grey),
        tones=quality.tones(content_grey, thumbnails[1]),
        sha256=hashlib.sha256(content).hexdigest(),
        thumbnail_digest=hashlib.sha256(f"{(width, height)}".encode() + thumbnails.tobytes()).hexdigest()[:32],
        cells=near_duplicates.cells(thumbnails).tobytes().hex() if has_contrast else "",
        dhash=hashes.to_hex(hashes.difference_hash(hashed)),
        phash=hashes.to_hex(hashes.perceptual_hash(hashed)),
        dhash_8x8=hashes.to_hex(hashes.difference_hash(rows_of_nine, 8)),
        reference_hash=hashes.to_hex(hashes.reference_hash(rows_of_nine)),
    )
    return metrics, thumbnails if has_contrast else None


def _scaled(box: Box, across: float, down: float) -> tuple[float, float, float, float]:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def rejection(row: ImageRow, reason: str, value: str, threshold: str, duplicate_of: str = "") -> RejectedRow:
    """Return the row of a rejected image."""
    return RejectedRow(row.product_url, row.image_id, row.product_id, row.file, reason, value, threshold, duplicate_of)


def pixels_digest(path: Path) -> str:
    """Return a digest of size and pixels as decoded; raises OSError and BrokenImageError."""
    pixels = images.decode_with_notes(path.read_bytes()).pixels
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def checked_path(layout: Layout, row: ImageRow) -> Path:
    """Return the path of a row's file; raises ValueError if it is not a product's image in this layout."""
    found = image_names.parse_path(row.file)
    if found != (row.product_id, row.image_id):
        raise ValueError(f"the name does not end in _{row.image_id}.jpg")
    path = layout.root / row.file
    is_inside = row.file == f"{layout.product_images.name}/{path.name}"
    if not is_inside or (path.is_symlink() and path.resolve().parent != layout.product_images.resolve()):
        raise ValueError("not in product_images/")
    return path
