"""Looking at one scraped image: read once, decoded once, measured for every check, or rejected with a reason."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from skincare import images
from skincare.cleaning import duplicates, hashes, quality
from skincare.cleaning.duplicates import Fingerprint, Thumbnails
from skincare.cleaning.quality import Box, Sharpness, Tones
from skincare.dataset import chat
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
class Measures:
    """What is known about an image that could be decoded; hashes and cells in hexadecimal digits.

    format, notes: see skincare.images.DecodedImage. box: of the content, in pixels of the upright image.
    look: a digest of the thumbnails, equal for equal pixels. cells: see skincare.cleaning.duplicates.cells, empty where
    there is no contrast, so nothing to compare. dhash, phash: 16 x 16 bits; dhash_8x8, reference_hash: what the
    reference meant and what it ran.
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
    look: str
    cells: str
    dhash: str
    phash: str
    dhash_8x8: str
    reference_hash: str

    def fingerprint(self, thumbnails: Thumbnails) -> Fingerprint:
        """Return what the image is compared by."""
        return Fingerprint(thumbnails, duplicates.aspects((self.width, self.height), self.box))


@dataclass(frozen=True)
class Broken:
    """Why a file cannot be measured."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Inspection:
    """An image with its measures; None and a rejection where it could not be read."""

    row: ImageRow
    measures: Measures | None
    rejection: RejectedRow | None


def look_at(path: Path) -> tuple[Measures | Broken, Thumbnails | None]:
    """Return what the file of an image gives, with its thumbnails where they are worth comparing."""
    try:
        return measure(path.read_bytes())
    except FileNotFoundError:
        return Broken("missing_file"), None
    except OSError as error:
        return Broken("unreadable_file", error.strerror or ""), None
    except BrokenImageError as error:
        return Broken(error.reason, str(error).partition(": ")[2]), None


def not_survived(path: Path) -> tuple[Broken, None]:
    """Return what there is to say of a file that no process survived looking at."""
    return Broken("kills_decoder", path.name), None


def measure(content: bytes) -> tuple[Measures, Thumbnails | None]:
    """Return the measures of an image and, where there is contrast, its thumbnails; raises BrokenImageError."""
    image = images.decode_with_notes(content)
    pixels = image.pixels
    height, width = pixels.shape[:2]
    half = images.reduced(pixels, _HALF_SIDE_PX)
    small = images.reduced(half, _SMALL_SIDE_PX)
    tiny = images.reduced(small, _TINY_SIDE_PX)
    box = quality.content_box(pixels, small)
    thumbnails = duplicates.thumbnails(tiny, half, _scaled(box, half.shape[1] / width, half.shape[0] / height))
    has_contrast = duplicates.has_contrast(thumbnails)
    grey = quality.to_grey(pixels)
    content_grey = quality.content_grey(grey, box)
    hashed = Image.fromarray(quality.to_grey(tiny))
    # What both hashes of 64 bits begin with.
    rows_of_nine = hashed.resize((9, 8), Image.Resampling.LANCZOS)
    measures = Measures(
        width=width,
        height=height,
        n_bytes=len(content),
        format=image.format,
        notes=image.notes,
        box=box,
        sharpness=quality.sharpness(grey, content_grey),
        tones=quality.tones(content_grey, thumbnails[1]),
        sha256=hashlib.sha256(content).hexdigest(),
        look=hashlib.sha256(f"{(width, height)}".encode() + thumbnails.tobytes()).hexdigest()[:32],
        cells=duplicates.cells(thumbnails).tobytes().hex() if has_contrast else "",
        dhash=hashes.to_hex(hashes.difference_hash(hashed)),
        phash=hashes.to_hex(hashes.perceptual_hash(hashed)),
        dhash_8x8=hashes.to_hex(hashes.difference_hash(rows_of_nine, 8)),
        reference_hash=hashes.to_hex(hashes.reference_hash(rows_of_nine)),
    )
    return measures, thumbnails if has_contrast else None


def _scaled(box: Box, across: float, down: float) -> tuple[float, float, float, float]:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def rejection(row: ImageRow, reason: str, value: str, limit: str, duplicate_of: str = "") -> RejectedRow:
    """Return the row of a rejected image."""
    return RejectedRow(row.product_url, row.image_id, row.product_id, row.file, reason, value, limit, duplicate_of)


def pixels_digest(path: Path) -> str:
    """Return a digest of size and pixels as decoded; raises OSError and BrokenImageError."""
    pixels = images.decode_with_notes(path.read_bytes()).pixels
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def checked_path(layout: Layout, row: ImageRow) -> Path:
    """Return where a row's file is; ValueError for one that is not a product's image of this layout."""
    found = chat.example_ids(row.file)
    if found != (row.product_id, row.image_id):
        raise ValueError(f"the name does not end in _{row.image_id}.jpg")
    path = layout.root / row.file
    is_inside = row.file == f"{layout.product_images.name}/{path.name}"
    if not is_inside or (path.is_symlink() and path.resolve().parent != layout.product_images.resolve()):
        raise ValueError("not in product_images/")
    return path
