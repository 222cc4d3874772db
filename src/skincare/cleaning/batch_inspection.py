"""Inspection of all images of a table; the metrics of unchanged files come from the metrics cache."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from skincare import worker_pool
from skincare.cleaning import inspection
from skincare.cleaning.inspection import Broken, ImageMetrics, Inspection
from skincare.cleaning.metrics_cache import FileState, MetricsCache
from skincare.errors import StageError
from skincare.paths import Layout
from skincare.tables import CLEAN, CleanRow, ImageRow
from skincare.worker_pool import Engine

# Reasons that do not depend on the file's content, so they are not cached.
_TRANSIENT = ("missing_file", "unreadable_file", "bad_path", "kills_decoder")
# The state of cached metrics that are found by the file's SHA-256 alone.
_UNKNOWN_STATE = FileState(-1, -1)


def inspect_all(
    rows: Sequence[ImageRow],
    layout: Layout,
    cache: MetricsCache,
    engine: Engine = "local",
    *,
    is_remeasured: bool = False,
) -> list[Inspection]:
    """Return the inspection of each image, in the order of the rows; `is_remeasured` ignores the cache."""
    known: dict[str, ImageMetrics | Broken] = {}
    changed: dict[str, tuple[Path, FileState]] = {}
    for row in rows:
        found = _look_up(layout, row, cache, is_remeasured=is_remeasured)
        if isinstance(found, ImageMetrics | Broken):
            known[row.file] = found
        else:
            changed[row.file] = found
    known.update(_measure(changed, cache, engine, "clean"))
    cache.forget_all_but(row.file for row in rows)
    return [_inspection(row, known[row.file]) for row in rows]


def metrics_of_kept(
    rows: Sequence[CleanRow] | Sequence[ImageRow], layout: Layout, cache: MetricsCache
) -> list[tuple[str, ImageMetrics]]:
    """Return for each cleaned image, in order, its name in the cache and its metrics.

    Metrics that clean.py has cached are used for files of the same bytes; the others are computed. Raises StageError
    for a file that is not an image.
    """
    path_of = {row.file: layout.root / row.file for row in rows}
    digests = worker_pool.map_threads(_digest, path_of.values())
    known = {
        file: found
        for file, sha256 in zip(path_of, digests, strict=True)
        if sha256 and (found := _recall(file, sha256, layout, cache))
    }
    unknown = {file: (path, _UNKNOWN_STATE) for file, path in path_of.items() if file not in known}
    for file, metrics in _measure(unknown, cache, "local", "build_dataset"):
        if isinstance(metrics, Broken):
            raise StageError(f"{file}: {metrics.reason} {metrics.detail}".rstrip() + f"\n{CLEAN.remedy}")
        known[file] = file, metrics
    return [known[row.file] for row in rows]


def _recall(file: str, sha256: str, layout: Layout, cache: MetricsCache) -> tuple[str, ImageMetrics] | None:
    """Return the cached metrics of the original of a cleaned image, or of itself."""
    original = layout.relative(layout.product_images / Path(file).name)
    found = ((name, cache.recall_content(name, sha256)) for name in (original, file))
    return next(((name, metrics) for name, metrics in found if metrics), None)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _look_up(
    layout: Layout, row: ImageRow, cache: MetricsCache, *, is_remeasured: bool
) -> ImageMetrics | Broken | tuple[Path, FileState]:
    """Return the cached inspection of a row's file, or its path and state."""
    try:
        path = inspection.checked_path(layout, row)
        status = path.stat()
    except ValueError as error:
        return Broken("bad_path", str(error))
    except FileNotFoundError:
        return Broken("missing_file")
    except OSError as error:
        return Broken("unreadable_file", error.strerror or "")
    state = FileState(status.st_size, status.st_mtime_ns)
    return (None if is_remeasured else cache.recall(row.file, state)) or (path, state)


def _measure(
    changed: dict[str, tuple[Path, FileState]], cache: MetricsCache, engine: Engine, stage: str
) -> Iterator[tuple[str, ImageMetrics | Broken]]:
    paths = (path for path, _ in changed.values())
    found = worker_pool.map_ordered(engine, inspection.inspect_file, paths, inspection.decoder_failure)
    bar = partial(tqdm, desc=stage, total=len(changed), unit="image", disable=None if changed else True)
    for (file, (_, state)), (metrics, thumbnails) in zip(changed.items(), bar(found), strict=True):
        if not (isinstance(metrics, Broken) and metrics.reason in _TRANSIENT):
            cache.keep(file, state, metrics, thumbnails)
        yield file, metrics


def _inspection(row: ImageRow, found: ImageMetrics | Broken) -> Inspection:
    if isinstance(found, ImageMetrics):
        return Inspection(row, found, None)
    return Inspection(row, None, inspection.rejection(row, found.reason, found.detail, ""))
