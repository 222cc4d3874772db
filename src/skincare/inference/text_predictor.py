"""Predicts images by the text that is printed on the pack: OCR, then the reader. No torch."""

from collections.abc import Sequence
from pathlib import Path

from skincare.categories import UNKNOWN
from skincare.inference.image_predictions import Row
from skincare.text_reading import extraction
from skincare.text_reading.extraction import ImageFile
from skincare.text_reading.ocr import EngineName, engine_label
from skincare.text_reading.ocr_cache import OcrCache
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader


class TextPredictor:
    """Reads packs. The answer column holds the phrases that decided, the weightiest first."""

    def __init__(self, reader: Reader, ocr: EngineName, cache: Path) -> None:
        """Read with an OCR engine on all cores, and what is in the cache not again.

        Raises MissingInputError where the engine is not installed.
        """
        self.name = f"reader, {engine_label(ocr)}"
        self._reader = reader
        self._ocr = ocr
        self._cache = cache

    def __call__(self, files: Sequence[Path]) -> list[Row]:
        """Return one row per file, in order."""
        images = [ImageFile(str(number), str(file), file) for number, file in enumerate(files)]
        with OcrCache(self._cache) as cache:
            packs, _ = extraction.extract_all(images, cache, self._ocr)
        return [self._row(pack) for pack in packs]

    def _row(self, pack: PackText) -> Row:
        if pack.status in ("unreadable", "failed"):
            return Row(pack.file, UNKNOWN, None, "unreadable", pack.reason)
        found = self._reader.predict(pack.lines, pack.other_script)
        probability = found.confidence if found.status in ("read", "abstained") else None
        return Row(pack.file, found.label or UNKNOWN, probability, found.status, "; ".join(found.evidence))
