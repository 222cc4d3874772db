"""Predicts images by the text that is printed on the pack: OCR, then the reader. No torch."""

from collections.abc import Sequence
from pathlib import Path

from skincare.inference.image_predictions import ImagePrediction
from skincare.labels import UNKNOWN
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader


class TextPredictor:
    """Predicts with the reader of packs; the answer column holds its evidence, the strongest phrase first."""

    def __init__(self, reader: Reader, packs: PackReader) -> None:
        self.name = f"reader, {packs.name}"
        self._reader = reader
        self._packs = packs

    def __call__(self, files: Sequence[Path]) -> list[ImagePrediction]:
        """Return one row per file, in order."""
        return [self._row(pack) for pack in self._packs.read(files)]

    def _row(self, pack: PackText) -> ImagePrediction:
        if pack.status in ("unreadable", "failed"):
            return ImagePrediction(pack.file, UNKNOWN, None, "unreadable", pack.reason)
        found = self._reader.predict(pack.lines, pack.other_script)
        probability = found.confidence if found.status in ("read", "abstained") else None
        return ImagePrediction(pack.file, found.label or UNKNOWN, probability, found.status, "; ".join(found.evidence))
