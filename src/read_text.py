"""Read what is printed on every image (OCR): lines of text with their place, size and confidence.

In: clean_dataset/annotations/clean_annotations.csv, clean_dataset/images/; or any folder of images.
Out: clean_dataset/annotations/pack_text.jsonl, one line an image (see skincare/text_reading/pack_text.py).
Command: python src/read_text.py [--ocr tesseract] [--engine ray]
         python src/read_text.py --images FOLDER --output texts.jsonl    any folder, with all its subfolders
Time: about a second of one core for a photo, half a second to start. The detector sees `--detection-px`:
      with 100,000, enough for large print, a drawn pack takes 0.15 s.

Each image is read once, known by its bytes: a second run reads only what is new, and one that was killed goes on where
it was. An image that crashes or hangs the reader becomes a row with the reason, the rest go on.
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
from skincare.text_reading.pack_text import PackText, Status, write_pack_text
from skincare.text_reading.rapid_ocr import DETECTION_PX
from skincare.worker_pool import Engine

logger = logging.getLogger(__name__)

# 100 x 100: what is left of a pack below it, nobody can read.
_LEAST_PX: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    images: Path | None = None
    """A folder of images to read instead of the cleaned ones, with all its subfolders."""
    output: Path | None = None
    """File to write instead of clean_dataset/annotations/pack_text.jsonl; needed with --images."""
    ocr: EngineName = "rapidocr"
    """OCR engine; tesseract also reads the scripts whose language data are installed, such as Russian."""
    detection_px: int = DETECTION_PX
    """Pixels in which lines are looked for; fewer are faster and miss small print. What is found is read in all."""
    engine: Engine = "local"
    """Where images are read: on this machine's cores, or by Ray."""
    reread: bool = False
    """Read every image anew, also those that are remembered."""

    @property
    def leaves_record(self) -> bool:
        """Tell whether the cleaned images are read, or only some folder."""
        return self.images is None


def run(config: Config, layout: Layout) -> Summary:
    """Read what is new, remember the rest, write one row an image."""
    if config.detection_px < _LEAST_PX:
        raise StageError(f"--detection-px {config.detection_px} is too few to see a letter; {_LEAST_PX} at least")
    if config.images and not config.output:
        raise StageError("--images needs --output, the file to write the texts to")
    files = _folder(config.images) if config.images else _cleaned(layout)
    output = config.output or layout.pack_text
    check_writable(output)
    with OcrCache(layout.ocr_cache) as cache:
        rows, n_new = extraction.extract_all(
            files, cache, config.ocr, config.engine, config.detection_px, anew=config.reread
        )
    write_pack_text(output, rows)
    counts = _counts(rows)
    listed = ", ".join(f"{status} {n:,}" for status, n in counts.items())
    return Summary(
        headline=f"read {len(rows):,} images ({n_new:,} new): {listed}; see {output}",
        counts=counts,
        results=_results(rows, n_new),
    )


def _cleaned(layout: Layout) -> list[ImageFile]:
    return [ImageFile(row.image_id, row.file, layout.root / row.file) for row in CLEAN.read(layout.clean_table)]


def _folder(folder: Path) -> list[ImageFile]:
    """Return the images of a folder and its subfolders; an image's id is its path below the folder."""
    if not folder.is_dir():
        raise MissingInputError("folder of images", folder, "Give an existing folder with --images.")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if _is_image(path)]
    if not names:
        raise StageError(f"{folder}: no images")
    return [ImageFile(name, name, folder / name) for name in sorted(names, key=natural_key)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in file_formats.SUFFIXES and path.is_file()


def _counts(rows: Sequence[PackText]) -> dict[str, int]:
    """Return how many images there are of each status; they add up to all."""
    found = Counter(row.status for row in rows)
    return {status: found[status] for status in get_args(Status)}


def _results(rows: Sequence[PackText], n_new: int) -> dict[str, Any]:
    """Return what the report shows beside the counts."""
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
