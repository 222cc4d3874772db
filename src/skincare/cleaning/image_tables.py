"""Tables with one row per image: images on a review sheet, their marks, and product crops."""

from dataclasses import dataclass
from typing import Final

from skincare.tables import Table


@dataclass(frozen=True)
class ReviewRow:
    """One image on a review sheet, with its value of the check; `is_least`: the threshold is a minimum."""

    sheet: str
    check: str
    limit: float
    is_least: bool
    image_id: str
    product_id: str
    file: str
    value: float


@dataclass(frozen=True)
class MarkRow:
    """The mark of an image on a review sheet: keep or reject."""

    sheet: str
    check: str
    image_id: str
    value: float
    verdict: str


@dataclass(frozen=True)
class CropRow:
    """One cleaned image in clean_dataset/focused/: the product crop, or the unchanged image with the reason."""

    image_id: str
    product_id: str
    file: str
    # "focused", or the reason why the image was not cropped.
    outcome: str
    method: str
    settings: str
    confidence: float | None
    # Of the product, in pixels of the image in clean_dataset/images/.
    left: int | None
    top: int | None
    right: int | None
    bottom: int | None
    source_sha256: str


REVIEW: Final = Table(ReviewRow, "Make it with `python src/clean.py --review CHECK`.", ("image_id",))
MARKS: Final = Table(MarkRow, "Mark images on the page that `clean.py --review CHECK` writes.", ("image_id",))
CROPPED: Final = Table(CropRow, "Make it with `python src/crop.py`.", ("image_id",))
