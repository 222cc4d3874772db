"""Which images are copies of one that stays, and which two categories share.

Of several copies the largest stays; of equally large ones the least compressed (most bytes); of equal ones the lowest
image id, so that the order of files decides nothing. Each copy is one of the image that stays itself, never of
another copy, so that a chain of small changes cannot lead from one product to the next.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from skincare.cleaning import duplicates
from skincare.cleaning.checks import CopyReason
from skincare.cleaning.inspection import Measures, rejection
from skincare.cleaning.measure_store import MeasureStore
from skincare.tables import ImageRow, RejectedRow, natural_key

Images = Sequence[tuple[ImageRow, Measures]]
Key = tuple[str, str]

_EQUAL_BY: Final[dict[CopyReason, Callable[[Measures], str]]] = {
    "duplicate_bytes": lambda one: one.sha256,
    "near_duplicate": lambda one: one.look if one.cells else one.sha256,
    "equal_dhash": lambda one: one.dhash_8x8,
    "equal_reference_hash": lambda one: one.reference_hash,
}


@dataclass(frozen=True)
class Likeness:
    """What is known about pairs of looks: see Measures.look.

    near: for a look those of near duplicates with their difference. pixels: for a file's sha256 the digest of its
    pixels, where another file has the same look.
    """

    near: Mapping[str, Mapping[str, float]]
    pixels: Mapping[str, str]


def find_likeness(images: Images, store: MeasureStore, pixels_digest: Callable[[ImageRow], str]) -> Likeness:
    """Compare all images with each other."""
    by_look: dict[str, dict[str, ImageRow]] = defaultdict(dict)
    first: dict[str, tuple[ImageRow, Measures]] = {}
    for row, measures in sorted(images, key=lambda image: _preference(*image)):
        by_look[measures.look].setdefault(measures.sha256, row)
        if measures.cells:
            first.setdefault(measures.look, (row, measures))
    looks = list(first)

    def fingerprint(i: int) -> duplicates.Fingerprint:
        row, measures = first[looks[i]]
        return store.fingerprint(row.file, measures)

    near: dict[str, dict[str, float]] = defaultdict(dict)
    all_cells = [duplicates.cells_from_hex(first[look][1].cells) for look in looks]
    for i, j, difference in duplicates.search(all_cells, fingerprint):
        near[looks[i]][looks[j]] = near[looks[j]][looks[i]] = difference
    pixels = {
        sha256: pixels_digest(row) for files in by_look.values() if len(files) > 1 for sha256, row in files.items()
    }
    return Likeness(near, pixels)


def reject_copies(
    images: Images, likeness: Likeness, category_of: Mapping[str, str], reasons: Sequence[CopyReason]
) -> list[RejectedRow]:
    """Return a row for each image that is a copy, in the sense of one of `reasons`, of one that stays.

    With `category_conflict` among the reasons also for each image that two categories share.
    """
    relations = [reason for reason in reasons if reason != "category_conflict"]
    ordered = sorted(images, key=lambda image: _preference(*image))
    rejected = _conflicts(ordered, likeness, category_of, relations) if "category_conflict" in reasons else []
    gone = {row.image_id for row in rejected}
    keeper_of_key: dict[Key, int] = {}
    for place, (row, measures) in enumerate(ordered):
        if row.image_id in gone:
            continue
        found = [keeper_of_key[key] for key in _related(measures, likeness, relations) if key in keeper_of_key]
        if found:
            rejected.append(_copy_row((row, measures), ordered[min(found)], likeness, relations))
        else:
            for key in _own(measures, likeness, relations):
                keeper_of_key.setdefault(key, place)
    return rejected


def _conflicts(
    ordered: Images, likeness: Likeness, category_of: Mapping[str, str], relations: Sequence[CopyReason]
) -> list[RejectedRow]:
    first: dict[Key, dict[str, ImageRow]] = defaultdict(dict)
    for row, measures in ordered:
        for key in _own(measures, likeness, relations):
            first[key].setdefault(category_of.get(row.product_id, ""), row)
    rejected = []
    for row, measures in ordered:
        own = category_of.get(row.product_id, "")
        others = (first[key] for key in _related(measures, likeness, relations) if key in first)
        other = next(((name, one) for found in others for name, one in found.items() if name != own), None)
        if other:
            value = f"{own or 'not in catalogue'} and {other[0] or 'not in catalogue'}"
            rejected.append(rejection(row, "category_conflict", value, "", other[1].image_id))
    return rejected


def _preference(row: ImageRow, measures: Measures) -> tuple[int, int, Any]:
    return -measures.width * measures.height, -measures.n_bytes, natural_key(row.image_id)


def _own(measures: Measures, likeness: Likeness, relations: Sequence[CopyReason]) -> Iterator[Key]:
    """Yield what an image shares with its copies, a key for each relation."""
    for relation in relations:
        if relation == "duplicate_pixels":
            yield relation, likeness.pixels.get(measures.sha256, measures.sha256)
        else:
            yield relation, _EQUAL_BY[relation](measures)


def _related(measures: Measures, likeness: Likeness, relations: Sequence[CopyReason]) -> Iterator[Key]:
    """Yield the keys of all images that this one is a copy of."""
    yield from _own(measures, likeness, relations)
    if "near_duplicate" in relations and measures.cells:
        for look in likeness.near.get(measures.look, {}):
            yield "near_duplicate", look


def _copy_row(
    copy: tuple[ImageRow, Measures], keeper: tuple[ImageRow, Measures], likeness: Likeness,
    relations: Sequence[CopyReason],
) -> RejectedRow:  # fmt: skip
    """Return the row of a copy; its reason is the surest of the relations that hold."""
    (row, measures), (kept_row, kept) = copy, keeper
    shared = set(_own(measures, likeness, relations)) & set(_own(kept, likeness, relations))
    reason = next((relation for relation in relations if relation in dict(shared)), "near_duplicate")
    if reason != "near_duplicate":
        return rejection(row, reason, "", "", kept_row.image_id)
    difference = likeness.near.get(measures.look, {}).get(kept.look, 0.0)
    return rejection(row, reason, f"{difference:.3f}", "1", kept_row.image_id)
