"""Cache of quality metrics: they are recomputed only if the file or the code that computes them has changed.

The key is the file's path below the root, its size and modification time, and a digest of the code. Thumbnails are
stored here too, so that they do not occupy memory.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np

from skincare import colours, file_formats, images
from skincare.cleaning import alignment, hashes, inspection, near_duplicates, quality
from skincare.cleaning.alignment import THUMBNAIL_SIDE
from skincare.cleaning.inspection import Broken, ImageMetrics
from skincare.cleaning.near_duplicates import Fingerprint, Thumbnails
from skincare.cleaning.quality import Sharpness, Tones
from skincare.code_version import code_version

logger = logging.getLogger(__name__)

_MODULES: Final = (alignment, colours, file_formats, hashes, images, inspection, near_duplicates, quality)
_LIBRARIES: Final = ("pillow", "simplejpeg", "opencv-python-headless", "numpy", "scipy")
_COMMIT_EVERY: Final = 500
# A file may change twice within the resolution of its modification time, so younger files are inspected again.
_SETTLED_AFTER_S: Final = 2.0
_TABLES: Final = """
create table if not exists measures (
    file text primary key, n_bytes integer, changed_ns integer, made_by text, found text, thumbnails blob
);
create table if not exists comparisons (
    one text, other text, made_by text, difference real, primary key (one, other)
);
"""


class FileState(NamedTuple):
    """Size and modification time, by which an unchanged file is recognised."""

    n_bytes: int
    changed_ns: int


class MetricsCache:
    """A table of metrics in one SQLite file, which may be deleted at any time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._made_by = code_version(_MODULES, _LIBRARIES)
        self._n_pending = 0
        try:
            self._database = _open(path)
        except sqlite3.DatabaseError as error:
            logger.warning("%s cannot be used (%s): all images are measured again", path, error)
            path.unlink()
            self._database = _open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._database.commit()
        self._database.close()

    def recall(self, file: str, state: FileState) -> ImageMetrics | Broken | None:
        """Return the cached inspection of a file in this state; None if it must be inspected."""
        row = self._database.execute(
            "select found from measures where file = ? and n_bytes = ? and changed_ns = ? and made_by = ?",
            (file, *state, self._made_by),
        ).fetchone()
        return None if row is None else _from_json(row[0])

    def recall_content(self, file: str, sha256: str) -> ImageMetrics | None:
        """Return the cached metrics of a file if they were computed from these bytes; else None."""
        row = self._database.execute(
            "select found from measures where file = ? and made_by = ?", (file, self._made_by)
        ).fetchone()
        found = None if row is None else _from_json(row[0])
        return found if isinstance(found, ImageMetrics) and found.sha256 == sha256 else None

    def keep(self, file: str, state: FileState, found: ImageMetrics | Broken, thumbnails: Thumbnails | None) -> None:
        """Store an inspection."""
        age_s = time.time() - state.changed_ns / 1e9
        changed_ns = state.changed_ns if age_s > _SETTLED_AFTER_S else -1
        blob = None if thumbnails is None else thumbnails.tobytes()
        self._database.execute(
            "insert or replace into measures values (?, ?, ?, ?, ?, ?)",
            (file, state.n_bytes, changed_ns, self._made_by, _to_json(found), blob),
        )
        self._n_pending += 1
        if self._n_pending % _COMMIT_EVERY == 0:
            self._database.commit()

    def fingerprint(self, file: str, metrics: ImageMetrics) -> Fingerprint:
        """Return the fingerprint of an image with contrast."""
        (blob,) = self._database.execute("select thumbnails from measures where file = ?", (file,)).fetchone()
        shape = (2, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
        return metrics.fingerprint(np.frombuffer(blob, np.uint8).reshape(shape))

    def recall_difference(self, digests: tuple[str, str]) -> float | None:
        """Return the cached difference of two images, given by the SHA-256 of their files; None if there is none."""
        row = self._database.execute(
            "select difference from comparisons where one = ? and other = ? and made_by = ?", (*digests, self._made_by)
        ).fetchone()
        return None if row is None else float(row[0])

    def keep_difference(self, digests: tuple[str, str], difference: float) -> None:
        """Store the difference of two images."""
        self._database.execute(
            "insert or replace into comparisons values (?, ?, ?, ?)", (*digests, self._made_by, difference)
        )

    def forget_all_but(self, files: Iterable[str]) -> None:
        """Delete the entries of all files not in the list."""
        self._database.execute("create temporary table listed (file text primary key)")
        self._database.executemany("insert or ignore into listed values (?)", ((file,) for file in files))
        self._database.execute("delete from measures where file not in (select file from listed)")
        self._database.execute("drop table listed")
        self._database.execute("delete from comparisons where made_by != ?", (self._made_by,))


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    # Thumbnails take 25 kB: whole pages instead of chains of small ones.
    database.execute("pragma page_size = 32768")
    # After a killed run the table is intact; only the last images are inspected again.
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = normal")
    database.executescript(_TABLES)
    return database


def _to_json(found: ImageMetrics | Broken) -> str:
    return json.dumps(found, default=vars)


def _from_json(text: str) -> ImageMetrics | Broken:
    fields: dict[str, Any] = json.loads(text)
    if "reason" in fields:
        return Broken(**fields)
    fields |= {"notes": tuple(fields["notes"]), "box": tuple(fields["box"])}
    return ImageMetrics(**fields | {"sharpness": Sharpness(**fields["sharpness"]), "tones": Tones(**fields["tones"])})
