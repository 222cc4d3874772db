"""Pairs of images that are near-duplicates, found on the images themselves, whatever the cleaning decided."""

from collections.abc import Sequence

from skincare.cleaning import batch_inspection, near_duplicates
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.paths import Layout
from skincare.tables import CleanRow, ImageRow


def near_duplicate_pairs(rows: Sequence[CleanRow] | Sequence[ImageRow], layout: Layout) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of rows whose images are near-duplicates.

    Raises StageError for a file that is no image.
    """
    with MetricsCache(layout.metrics_cache) as cache:
        inspected = batch_inspection.metrics_of_kept(rows, layout, cache)
        places = [place for place, (_, metrics) in enumerate(inspected) if metrics.cells]
        cells = [near_duplicates.cells_from_hex(inspected[place][1].cells) for place in places]
        pairs = near_duplicates.search(cells, lambda i: cache.fingerprint(*inspected[places[i]]))
    return [(places[i], places[j]) for i, j, _ in pairs]
