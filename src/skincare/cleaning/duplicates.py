"""Rejection of duplicates: exact duplicates, near-duplicates, and images that several categories or products share.

The representative of a group of duplicates is the largest image; of equally large ones the least compressed (most
bytes); then the one with the lowest image id, so that the order of files has no influence. Every rejected image is a
duplicate of the representative itself, never of another duplicate, so that a chain of small changes cannot connect two
products.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from skincare.catalogue import Product
from skincare.cleaning import inspection
from skincare.cleaning.checks import Choice, DuplicateReason
from skincare.cleaning.inspection import ImageMetrics, rejection
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.cleaning.verification import InspectedImage, near_duplicate_pairs
from skincare.paths import Layout
from skincare.product.sizes import name_family
from skincare.tables import ImageRow, RejectedRow, natural_key

Images = Sequence[tuple[ImageRow, ImageMetrics]]
Key = tuple[str, str]

_EQUAL_BY: Final[dict[DuplicateReason, Callable[[ImageMetrics], str]]] = {
    "duplicate_bytes": lambda one: one.sha256,
    "near_duplicate": lambda one: one.thumbnail_digest if one.cells else one.sha256,
    "equal_dhash": lambda one: one.dhash_8x8,
    "equal_reference_hash": lambda one: one.reference_hash,
}


@dataclass(frozen=True)
class Products:
    """Category and family of each product id; sizes of one product have the same family."""

    category_of: Mapping[str, str]
    family_of: Mapping[str, str]

    @classmethod
    def of(cls, products: Iterable[Product]) -> "Products":
        """Return the categories and families of a catalogue's products."""
        listed = list(products)
        return cls(
            {product.product_id: product.category for product in listed},
            {product.product_id: name_family(product.name) for product in listed},
        )

    def category(self, product_id: str) -> str:
        """Return a product's category."""
        return self.category_of.get(product_id, "not in catalogue")

    def family(self, product_id: str) -> str:
        """Return a product's family; a product that is not in the catalogue is its own family."""
        return self.family_of.get(product_id, product_id)


@dataclass(frozen=True)
class Similarities:
    """Which images are equal or near-duplicates, beyond their metrics.

    near: ImageMetrics.thumbnail_digest -> those of its near-duplicates with their difference. pixels: the SHA-256 of a
    file -> the digest of its pixels, for files that share a thumbnail digest.
    """

    near: Mapping[str, Mapping[str, float]]
    pixels: Mapping[str, str]


def find_similarities(images: Images, cache: MetricsCache, layout: Layout) -> Similarities:
    """Compare all images with each other."""
    by_digest: dict[str, dict[str, ImageRow]] = defaultdict(dict)
    first: dict[str, InspectedImage] = {}
    for row, metrics in sorted(images, key=lambda image: _preference(*image)):
        by_digest[metrics.thumbnail_digest].setdefault(metrics.sha256, row)
        if metrics.cells:
            path = inspection.checked_path(layout, row)
            first.setdefault(metrics.thumbnail_digest, InspectedImage(path, row.file, metrics))
    digests = list(first)
    near: dict[str, dict[str, float]] = defaultdict(dict)
    for (i, j), difference in near_duplicate_pairs(list(first.values()), cache).items():
        near[digests[i]][digests[j]] = near[digests[j]][digests[i]] = difference
    pixels = {
        sha256: inspection.pixels_digest(inspection.checked_path(layout, row))
        for rows in by_digest.values()
        if len(rows) > 1
        for sha256, row in rows.items()
    }
    return Similarities(near, pixels)


def reject_duplicates(
    images: Images, similarities: Similarities, products: Products, choice: Choice
) -> list[RejectedRow]:
    """Return a row for each image that is a duplicate of a representative for one of the chosen reasons.

    The reason `shared_image` also gives a row for each image of `choice.shared_by` or more product families, and
    `category_conflict` one for each image of two categories; these rows have no representative.
    """
    reasons = choice.duplicate_reasons
    relations = [reason for reason in reasons if reason not in ("shared_image", "category_conflict")]
    remaining = sorted(images, key=lambda image: _preference(*image))
    rejected: list[RejectedRow] = []
    for reason, find in (
        ("shared_image", partial(_shared, shared_by=choice.shared_by)),
        ("category_conflict", _conflicts),
    ):
        if reason in reasons:
            rejected += find(remaining, similarities, products, relations)
            rejected_ids = {row.image_id for row in rejected}
            remaining = [image for image in remaining if image[0].image_id not in rejected_ids]
    representative_of_key: dict[Key, int] = {}
    for place, (row, metrics) in enumerate(remaining):
        found = [
            representative_of_key[key]
            for key in _related(metrics, similarities, relations)
            if key in representative_of_key
        ]
        if found:
            rejected.append(_duplicate_row((row, metrics), remaining[min(found)], similarities, relations))
        else:
            for key in _own(metrics, similarities, relations):
                representative_of_key.setdefault(key, place)
    return rejected


def _shared(
    ordered: Images, similarities: Similarities, products: Products, relations: Sequence[DuplicateReason], *,
    shared_by: int,
) -> list[RejectedRow]:  # fmt: skip
    """Return a row for each image that `shared_by` or more product families show."""
    images_of_key: dict[Key, dict[str, str]] = defaultdict(dict)
    for row, metrics in ordered:
        for key in _own(metrics, similarities, relations):
            images_of_key[key].setdefault(products.family(row.product_id), row.image_id)
    rejected = []
    for row, metrics in ordered:
        image_of_family = {
            family: image_id
            for key in _related(metrics, similarities, relations)
            for family, image_id in images_of_key.get(key, {}).items()
        }
        if len(image_of_family) >= shared_by:
            other = min((one for one in image_of_family.values() if one != row.image_id), key=natural_key)
            rejected.append(rejection(row, "shared_image", str(len(image_of_family)), str(shared_by), other))
    return rejected


def _conflicts(
    ordered: Images, similarities: Similarities, products: Products, relations: Sequence[DuplicateReason]
) -> list[RejectedRow]:
    """Return a row for each image that two categories show."""
    first: dict[Key, dict[str, ImageRow]] = defaultdict(dict)
    for row, metrics in ordered:
        for key in _own(metrics, similarities, relations):
            first[key].setdefault(products.category(row.product_id), row)
    rejected = []
    for row, metrics in ordered:
        own = products.category(row.product_id)
        others = (first[key] for key in _related(metrics, similarities, relations) if key in first)
        other = next(((name, one) for found in others for name, one in found.items() if name != own), None)
        if other:
            rejected.append(rejection(row, "category_conflict", f"{own} and {other[0]}", "", other[1].image_id))
    return rejected


def _preference(row: ImageRow, metrics: ImageMetrics) -> tuple[int, int, Any]:
    return -metrics.width * metrics.height, -metrics.n_bytes, natural_key(row.image_id)


def _own(metrics: ImageMetrics, similarities: Similarities, relations: Sequence[DuplicateReason]) -> Iterator[Key]:
    """Yield the key of an image for each relation; duplicates have equal keys."""
    for relation in relations:
        if relation == "duplicate_pixels":
            yield relation, similarities.pixels.get(metrics.sha256, metrics.sha256)
        else:
            yield relation, _EQUAL_BY[relation](metrics)


def _related(metrics: ImageMetrics, similarities: Similarities, relations: Sequence[DuplicateReason]) -> Iterator[Key]:
    """Yield the keys of all images that this one is a duplicate of."""
    yield from _own(metrics, similarities, relations)
    if "near_duplicate" in relations and metrics.cells:
        for digest in similarities.near.get(metrics.thumbnail_digest, {}):
            yield "near_duplicate", digest


def _duplicate_row(
    duplicate: tuple[ImageRow, ImageMetrics], representative: tuple[ImageRow, ImageMetrics], similarities: Similarities,
    relations: Sequence[DuplicateReason],
) -> RejectedRow:  # fmt: skip
    """Return the row of a duplicate; its reason is the strictest relation that holds."""
    (row, metrics), (kept_row, kept) = duplicate, representative
    shared = set(_own(metrics, similarities, relations)) & set(_own(kept, similarities, relations))
    reason = next((relation for relation in relations if relation in dict(shared)), "near_duplicate")
    if reason != "near_duplicate":
        return rejection(row, reason, "", "", kept_row.image_id)
    difference = similarities.near.get(metrics.thumbnail_digest, {}).get(kept.thumbnail_digest, 0.0)
    return rejection(row, reason, f"{difference:.3f}", "1", kept_row.image_id)
