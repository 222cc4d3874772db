"""Near-duplicates among images: candidates by thumbnails, each verified on the images themselves, on all cores.

In: the images with their metrics and the metrics cache, which also stores the differences. Out: pairs with their
difference, as a share of the threshold for near-duplicates.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from skincare import images, worker_pool
from skincare.cleaning import alignment, batch_inspection, near_duplicates
from skincare.cleaning.alignment import Alignment
from skincare.cleaning.inspection import ImageMetrics
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.cleaning.near_duplicates import Candidate
from skincare.cleaning.quality import Box
from skincare.images import Pixels
from skincare.paths import Layout
from skincare.tables import CleanRow, ImageRow

Pair = tuple[int, int]


class InspectedImage(NamedTuple):
    """An image with contrast: its path, its name in the metrics cache, and its metrics."""

    path: Path
    file: str
    metrics: ImageMetrics


@dataclass(frozen=True)
class Comparison:
    """Two views to compare: the files, the content boxes (None for the whole frame) and the alignment."""

    paths: tuple[Path, Path]
    boxes: tuple[Box | None, Box | None]
    alignment: Alignment


def near_duplicate_pairs(inspected: Sequence[InspectedImage], cache: MetricsCache) -> dict[Pair, float]:
    """Return (i, j), i < j, of all near-duplicates with their difference; preferred images must come first."""

    def fingerprint(i: int) -> near_duplicates.Fingerprint:
        return cache.fingerprint(inspected[i].file, inspected[i].metrics)

    cells = [near_duplicates.cells_from_hex(one.metrics.cells) for one in inspected]
    candidates = near_duplicates.search(cells, fingerprint)
    first = {candidate.j: candidate for candidate in reversed(candidates)}
    pairs = _verified(first.values(), inspected, cache)
    # Near-duplicates of one image count as near-duplicates of each other: a large group needs one comparison per image.
    relatives: dict[int, dict[int, float]] = defaultdict(dict)
    for (i, j), difference in pairs.items():
        relatives[j][i] = difference
        relatives[i].setdefault(i, 0.0)
    remaining = []
    for candidate in candidates:
        common = relatives[candidate.i].keys() & relatives[candidate.j].keys()
        if common:
            implied = max(relatives[k][other] for k in (candidate.i, candidate.j) for other in common)
            pairs.setdefault((candidate.i, candidate.j), implied)
        elif first[candidate.j] is not candidate:
            remaining.append(candidate)
    return pairs | _verified(remaining, inspected, cache)


def near_duplicate_rows(rows: Sequence[CleanRow] | Sequence[ImageRow], layout: Layout) -> list[tuple[int, int]]:
    """Return the sorted pairs (i, j), i < j, of rows whose images are near-duplicates.

    This does not depend on the checks of clean.py. Raises StageError for a file that is not an image.
    """
    with MetricsCache(layout.metrics_cache) as cache:
        inspected = [
            InspectedImage(layout.root / rows[place].file, name, metrics)
            for place, (name, metrics) in enumerate(batch_inspection.metrics_of_kept(rows, layout, cache))
        ]
        places = [place for place, image in enumerate(inspected) if image.metrics.cells]
        pairs = near_duplicate_pairs([inspected[place] for place in places], cache)
    return sorted((places[i], places[j]) for i, j in pairs)


def compare_files(task: Comparison) -> float:
    """Return the difference of two views, as a share of the threshold for near-duplicates."""
    try:
        one, other = (_view(path, box) for path, box in zip(task.paths, task.boxes, strict=True))
        return alignment.view_difference(one, other, task.alignment)
    except (OSError, images.BrokenImageError):
        # Changed or removed since it was inspected.
        return math.inf


def _view(path: Path, box: Box | None) -> Pixels:
    pixels = images.decode_with_notes(path.read_bytes()).pixels
    left, top, right, bottom = box or (0, 0, pixels.shape[1], pixels.shape[0])
    return pixels[top:bottom, left:right]


def _verified(
    candidates: Iterable[Candidate], inspected: Sequence[InspectedImage], cache: MetricsCache
) -> dict[Pair, float]:
    """Return the candidates that are near-duplicates, with their difference."""
    differences: dict[Pair, float] = {}
    unknown: dict[Pair, Comparison] = {}
    digests: Mapping[Pair, tuple[str, str]] = {
        (one.i, one.j): (inspected[one.i].metrics.sha256, inspected[one.j].metrics.sha256) for one in candidates
    }
    for candidate in candidates:
        pair = candidate.i, candidate.j
        known = cache.recall_difference(digests[pair])
        if known is None:
            unknown[pair] = _comparison(candidate, inspected)
        else:
            differences[pair] = known
    found = worker_pool.map_ordered("local", compare_files, unknown.values(), _failed) if unknown else ()
    for pair, difference in zip(unknown, found, strict=True):
        differences[pair] = difference
        if math.isfinite(difference):
            cache.keep_difference(digests[pair], difference)
    return {pair: difference for pair, difference in differences.items() if difference <= 1}


def _comparison(candidate: Candidate, inspected: Sequence[InspectedImage]) -> Comparison:
    one, other = inspected[candidate.i], inspected[candidate.j]
    boxes = tuple(
        image.metrics.box if is_content else None
        for image, is_content in zip((one, other), candidate.views, strict=True)
    )
    return Comparison((one.path, other.path), (boxes[0], boxes[1]), candidate.alignment)


def _failed(_: Comparison) -> float:
    return math.inf
