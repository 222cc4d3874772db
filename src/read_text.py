"""Run OCR on every image: lines of text with position, size and confidence.

In: clean_dataset/annotations/clean_annotations.csv, clean_dataset/images/; or any folder of images.
Out: clean_dataset/annotations/pack_text.jsonl, one line per image (see skincare/text_reading/pack_text.py).
Command: python src/read_text.py [--ocr tesseract] [--engine ray]
         python src/read_text.py --images FOLDER --output texts.jsonl    any folder with its subfolders
Time: about a second of one core per photo, half a second to start; with `--detection-px 100000`, enough for
      large print, a drawn pack takes 0.15 s.

Results are cached by the content of the image: a second run reads only new images, and an interrupted run resumes. An
image on which the OCR engine crashes or times out becomes a row with the reason; a second run reads it again.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from skincare import file_formats, stage
from skincare.errors import MissingInputError, StageError
from skincare.files import check_writable
from skincare.paths import Layout
from skincare.runlog import Summary
from skincare.tables import CLEAN, natural_key
from skincare.text_reading import extraction
from skincare.text_reading.extraction import ImageFile
from skincare.text_reading.ocr import EngineName
from skincare.text_reading.ocr_cache import OcrCache
from skincare.text_reading.pack_text import PackText, PackTextStatus, write_pack_text
from skincare.text_reading.rapid_ocr import DETECTION_PX
from skincare.worker_pool import Engine

logger = logging.getLogger(__name__)

# 100 x 100: on smaller images a pack is not legible.
_MIN_PX: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    images: Path | None = None
    """Folder of images to read instead of the cleaned images, including subfolders."""
    output: Path | None = None
    """Output file, instead of clean_dataset/annotations/pack_text.jsonl; required with --images."""
    ocr: EngineName = "rapidocr"
    """OCR engine; tesseract also reads scripts whose language data are installed, such as Cyrillic."""
    detection_px: int = DETECTION_PX
    """Maximum number of pixels for line detection; fewer are faster and miss small print."""
    engine: Engine = "local"
    """Where the workers run: on the cores of this machine, or on Ray."""
    reread: bool = False
    """Ignore the cache and read every image again."""

    @property
    def writes_summary(self) -> bool:
        """Return whether the stage reads the cleaned images, not a folder."""
        return self.images is None


def run(config: Config, layout: Layout) -> Summary:
    """Read the images that are not cached; write one row per image."""
    if config.detection_px < _MIN_PX:
        raise StageError(f"--detection-px {config.detection_px} is too few to detect letters; the minimum is {_MIN_PX}")
    if config.images and not config.output:
        raise StageError("--images needs --output, the file for the texts")
    files = _folder(config.images) if config.images else _cleaned(layout)
    output = config.output or layout.pack_text
    check_writable(output)
    with OcrCache(layout.ocr_cache) as cache:
        rows, n_new = extraction.extract_all(
            files, cache, config.ocr, config.engine, config.detection_px, reread=config.reread
        )
    write_pack_text(output, rows)
    counts = _counts(rows)
    if counts["failed"]:
        logger.warning("The OCR engine crashed or timed out on %d images: run again to read them", counts["failed"])
    listed = ", ".join(f"{status} {n:,}" for status, n in counts.items())
    return Summary(
        headline=f"read {len(rows):,} images ({n_new:,} new): {listed}; see {output}",
        counts=counts,
        results=_results(rows, n_new),
    )


def _cleaned(layout: Layout) -> list[ImageFile]:
    return [ImageFile(row.image_id, row.file, layout.root / row.file) for row in CLEAN.read(layout.clean_table)]


def _folder(folder: Path) -> list[ImageFile]:
    """Return the images of a folder and its subfolders; the id of an image is its relative path."""
    if not folder.is_dir():
        raise MissingInputError("folder of images", folder, "Give an existing folder with --images.")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if _is_image(path)]
    if not names:
        raise StageError(f"{folder}: no images")
    return [ImageFile(name, name, folder / name) for name in sorted(names, key=natural_key)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in file_formats.SUFFIXES and path.is_file()


def _counts(rows: Sequence[PackText]) -> dict[str, int]:
    """Return the number of images by status; they add up to all images."""
    found = Counter(row.status for row in rows)
    return {status: found[status] for status in get_args(PackTextStatus)}


def _results(rows: Sequence[PackText], n_new: int) -> dict[str, Any]:
    """Return the figures that the report shows in addition to the counts."""
    read = [row for row in rows if row.lines]
    lines = [line for row in read for line in row.lines]
    return {
        "seen": len(rows),
        "new": n_new,
        "engine": rows[0].engine if rows else "",
        "lines_an_image": round(len(lines) / len(rows), 2) if rows else 0.0,
        "median_confidence": round(float(np.median([line.confidence for line in lines])), 3) if lines else None,
        "other_scripts": dict(sorted(Counter(row.other_script for row in rows if row.other_script).items())),
        "reasons": dict(sorted(Counter(row.reason for row in rows if row.reason).items())),
    }


def main() -> None:
    """Run the stage from the command line."""
    stage.main("read_text", Config, run)


if __name__ == "__main__":
    main()
