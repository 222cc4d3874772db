"""Cache of OCR results, keyed by the content of the image, the engine and the version of code and libraries.

One SQLite file for all folders; it can be deleted at any time. Entries are committed one by one, so an interrupted
run resumes.
"""

import logging
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from skincare import colours, images
from skincare.cleaning import quality
from skincare.code_version import code_version
from skincare.text_reading import line_boxes, pack_text, rapid_ocr, reading_order, scripts, second_pass, tesseract_ocr
from skincare.text_reading.pack_text import PackText

logger = logging.getLogger(__name__)

_MODULES: Final = (
    colours, images, quality, line_boxes, pack_text, rapid_ocr, reading_order, scripts, second_pass, tesseract_ocr,
)  # fmt: skip
_LIBRARIES: Final = ("pillow", "simplejpeg", "opencv-python-headless", "numpy")
_TABLE: Final = """
create table if not exists pack_text (
    sha256 text, engine text, made_by text, found text, primary key (sha256, engine)
)
"""


class OcrCache:
    """A table of pack texts in one SQLite file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._made_by = code_version(_MODULES, _LIBRARIES)
        try:
            self._database = _open(path)
        except sqlite3.DatabaseError as error:
            logger.warning("%s cannot be used (%s): all images are read again", path, error)
            path.unlink()
            self._database = _open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._database.close()

    def get(self, sha256: str, engine: str) -> PackText | None:
        """Return the cached text of an image with empty id and file; None on a miss."""
        row = self._database.execute(
            "select found from pack_text where sha256 = ? and engine = ? and made_by = ?",
            (sha256, engine, self._made_by),
        ).fetchone()
        try:
            return None if row is None else pack_text.from_json(row[0])
        except ValueError as error:
            logger.warning("a cached OCR result is invalid (%s): the image is read again", error)
            return None

    def put(self, found: PackText) -> None:
        """Store and commit one result."""
        text = pack_text.to_json(replace(found, image_id="", file=""))
        with self._database:
            self._database.execute(
                "insert or replace into pack_text values (?, ?, ?, ?)",
                (found.sha256, found.engine, self._made_by, text),
            )


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = normal")
    database.execute(_TABLE)
    return database
