"""Looking at one scraped picture: decoded once, it is measured for every check, or rejected with a reason."""

import hashlib
from dataclasses import dataclass

import numpy as np

from skincare import chat, duplicates, quality
from skincare.duplicates import Fingerprint
from skincare.images import BrokenImageError, decode
from skincare.paths import Layout
from skincare.quality import Sharpness
from skincare.tables import ImageRow, RejectedRow


@dataclass(frozen=True)
class Limits:
    """What a picture must reach."""

    min_side_px: int
    min_sharpness: float


@dataclass(frozen=True)
class Measures:
    """What is known about a picture that could be decoded; hashes in hexadecimal digits."""

    width: int
    height: int
    n_bytes: int
    sharpness: Sharpness
    sha256: str
    pixels_sha256: str
    dhash: str
    fingerprint: Fingerprint | None


@dataclass(frozen=True)
class Inspection:
    """A picture with its measures (None where it could not be read) and, where it failed a check, its rejection."""

    row: ImageRow
    measures: Measures | None
    rejection: RejectedRow | None


def inspect(layout: Layout, row: ImageRow, limits: Limits) -> Inspection:
    """Read, decode and measure the picture of a row."""
    try:
        content = _read(layout, row)
        measures = measure(content)
    except FileNotFoundError:
        return Inspection(row, None, rejection(row, "missing_file", "", ""))
    except OSError as error:
        return Inspection(row, None, rejection(row, "unreadable_file", error.strerror or "", ""))
    except BrokenImageError as error:
        return Inspection(row, None, rejection(row, error.reason, str(error).partition(": ")[2], ""))
    except ValueError as error:
        return Inspection(row, None, rejection(row, "bad_path", str(error), ""))
    return Inspection(row, measures, _judge(row, measures, limits))


def measure(content: bytes) -> Measures:
    """Return the measures of a picture; raises BrokenImageError."""
    image = decode(content)
    box = quality.content_box(image)
    return Measures(
        width=image.width,
        height=image.height,
        n_bytes=len(content),
        sharpness=quality.sharpness(image, box),
        sha256=hashlib.sha256(content).hexdigest(),
        pixels_sha256=hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest(),
        dhash=np.packbits(duplicates.difference_hash(image).ravel()).tobytes().hex(),
        fingerprint=duplicates.fingerprint(image, box),
    )


def rejection(row: ImageRow, reason: str, value: str, limit: str, duplicate_of: str = "") -> RejectedRow:
    """Return the row of a rejected picture."""
    return RejectedRow(row.product_url, row.image_id, row.product_id, row.file, reason, value, limit, duplicate_of)


def _read(layout: Layout, row: ImageRow) -> bytes:
    """Return the bytes of a row's file; ValueError for one that is not a product's picture of this layout."""
    found = chat.example_ids(row.file)
    if found != (row.product_id, row.image_id):
        raise ValueError(f"the name does not end in _{row.image_id}.jpg")
    path = (layout.root / row.file).resolve()
    if path.parent != layout.product_images.resolve():
        raise ValueError("not in product_images/")
    return path.read_bytes()


def _judge(row: ImageRow, measures: Measures, limits: Limits) -> RejectedRow | None:
    side = min(measures.width, measures.height)
    if side < limits.min_side_px:
        return rejection(row, "too_small", str(side), str(limits.min_side_px))
    if measures.sharpness.content < limits.min_sharpness:
        return rejection(row, "blurred", f"{measures.sharpness.content:.2f}", f"{limits.min_sharpness:g}")
    return None
