"""Pairs of images that are near-duplicates, found on the images themselves, whatever the cleaning decided."""

from collections.abc import Sequence

from skincare.cleaning import batch_inspection, verification
from skincare.cleaning.metrics_cache import MetricsCache
from skincare.cleaning.verification import InspectedImage
from skincare.paths import Layout
from skincare.tables import CleanRow, ImageRow


def near_duplicate_pairs(rows: Sequence[CleanRow] | Sequence[ImageRow], layout: Layout) -> list[tuple[int, int]]:
    """Return the sorted pairs (i, j), i < j, of rows whose images are near-duplicates.

    Raises StageError for a file that is no image.
    """
    with MetricsCache(layout.metrics_cache) as cache:
        images = [
            InspectedImage(layout.root / rows[place].file, name, metrics)
            for place, (name, metrics) in enumerate(batch_inspection.metrics_of_kept(rows, layout, cache))
        ]
        places = [place for place, image in enumerate(images) if image.metrics.cells]
        pairs = verification.near_duplicate_pairs([images[place] for place in places], cache)
    return sorted((places[i], places[j]) for i, j in pairs)
