"""Predicts images by the text that is printed on the pack: OCR, then the reader. No torch."""

from collections.abc import Sequence

from skincare.inference.image_predictions import ImagePrediction, InputImage, failed, pack_of, with_ranking
from skincare.labels import UNKNOWN
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader


class TextPredictor:
    """Predicts with the reader of packs; the answer holds its evidence, the strongest phrase first."""

    reads_text = True
    needs_pixels = False

    def __init__(self, reader: Reader, packs: PackReader, top_k: int = 3) -> None:
        self.name = f"reader, {packs.name}"
        self.labels = reader.labels
        self.threshold: float | None = reader.threshold
        self._reader = reader
        self.packs = packs
        self._top_k = top_k

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        return [self._row(image.file, pack_of(image, self.packs)) for image in images]

    def _row(self, file: str, pack: PackText) -> ImagePrediction:
        if pack.status in ("unreadable", "failed"):
            return failed(file, pack.reason, pack.status)
        found = self._reader.predict(pack.lines, pack.other_script)
        has_probability = found.status in ("read", "abstained")
        row = ImagePrediction(
            file, found.label or UNKNOWN, found.confidence if has_probability else None, found.status,
            "; ".join(found.evidence), text=pack.texts,
        )  # fmt: skip
        return with_ranking(row, found.log_probabilities, self.labels, self._top_k) if has_probability else row
