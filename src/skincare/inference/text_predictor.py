"""Predicts images by the text that is printed on the pack: OCR, then the reader. No torch."""

from collections.abc import Sequence
from pathlib import Path

from skincare.categories import UNKNOWN
from skincare.inference.image_predictions import Row, open_image
from skincare.text_reading.ocr import EngineName, OcrEngine, make_engine
from skincare.text_reading.reader import Reader


class TextPredictor:
    """Reads packs. The answer column holds the phrases that decided, the weightiest first."""

    def __init__(self, reader: Reader, engine: OcrEngine) -> None:
        self.name = f"reader, {engine.name}"
        self._reader = reader
        self._engine = engine

    @classmethod
    def of(cls, reader: Reader, ocr: EngineName) -> "TextPredictor":
        """Return a predictor with an engine of its own; raises MissingInputError where that is not installed."""
        return cls(reader, make_engine(ocr))

    def __call__(self, files: Sequence[Path]) -> list[Row]:
        """Return one row per file, in order."""
        return [self._row(file) for file in files]

    def _row(self, file: Path) -> Row:
        pixels = open_image(file)
        if isinstance(pixels, Row):
            return pixels
        found = self._reader.predict(self._engine.read(pixels))
        probability = found.confidence if found.status in ("read", "abstained") else None
        return Row(str(file), found.label or UNKNOWN, probability, found.status, "; ".join(found.evidence))
