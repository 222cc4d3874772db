"""Size limit and removal of `.cache/`: vision features, fetched images, predictions, OCR and quality metrics.

Everything in it can be computed or fetched again.
"""

import logging
import shutil

from skincare.paths import Layout

logger = logging.getLogger(__name__)


def clear(layout: Layout) -> None:
    """Delete the whole cache."""
    if layout.cache.is_dir():
        shutil.rmtree(layout.cache)
        logger.info("%s was deleted", layout.cache)


def trim(layout: Layout, max_bytes: float) -> int:
    """Delete the oldest vision features and fetched images until the cache has at most `max_bytes`.

    Predictions, OCR and quality metrics are small and are not deleted. Returns the number of deleted files.
    """
    sizes = {file: file.stat() for file in layout.cache.rglob("*") if file.is_file()}
    n_bytes = sum(one.st_size for one in sizes.values())
    folders = (layout.vision_cache, layout.image_cache)
    removable = [file for file in sizes if any(folder in file.parents for folder in folders)]
    n_deleted = 0
    for file in sorted(removable, key=lambda one: (sizes[one].st_mtime, one)):
        if n_bytes <= max_bytes:
            break
        file.unlink(missing_ok=True)
        n_bytes -= sizes[file].st_size
        n_deleted += 1
    if n_deleted:
        logger.info("%s: deleted the %d oldest files, for at most %.1f GB", layout.cache, n_deleted, max_bytes / 1e9)
    return n_deleted
