"""Predicts images with a fine-tuned model and the reader of its folder, as fuse.py fitted them. Imports torch."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skincare.errors import StageError
from skincare.evaluation import fusion
from skincare.inference.image_predictions import Row
from skincare.inference.model_predictor import ModelPredictor
from skincare.labels import Labels
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader, ReaderPrediction
from skincare.text_reading.split_reader import is_read

logger = logging.getLogger(__name__)


class FusedPredictor:
    """Asks both. Status `fused`, or `model` where no text was read; the answer column holds the words that the reader
    went by.

    Raises MissingInputError where the model's folder holds no fusion.
    """

    def __init__(self, source: Path, labels: Labels, packs: PackReader, batch_size: int = 16) -> None:
        self._weights, notes = fusion.read(source)
        if notes.get("decoder") not in ("rank", "head"):
            raise StageError(f"{source / fusion.FILE}: fitted with an unknown decoder; run `python src/fuse.py` again")
        self._reader = Reader.load(source / fusion.READER_FOLDER, labels)
        self._packs = packs
        self._model = ModelPredictor(
            str(source), labels, notes["decoder"], 1.0, needs_probabilities=True, batch_size=batch_size, packs=packs
        )  # fmt: skip
        if packs.name != notes.get("ocr"):
            logger.warning("The fusion was fitted with other OCR (%s) than reads now", notes.get("ocr"))
        self.name = f"{self._model.name}, fused with the reader, {packs.name}"

    def __call__(self, files: Sequence[Path]) -> list[Row]:
        """Return one row per file, in order."""
        packs = self._packs.read(files)
        return [
            found if isinstance(found, Row) else self._row(file, found.log_probabilities, self._read(pack))
            for file, pack, found in zip(files, packs, self._model.answers(files, packs), strict=True)
        ]

    def _read(self, pack: PackText) -> ReaderPrediction:
        return self._reader.predict(pack.lines, pack.other_script)

    def _row(self, file: Path, model: Sequence[float], read: ReaderPrediction) -> Row:
        has_text = is_read(read.status)
        said, told = (np.array([some]) for some in (model, read.log_probabilities))
        (row,) = fusion.fuse(self._weights, said, told, np.array([has_text]))
        category = self._reader.labels.names[int(row.argmax())]
        words = "; ".join(read.evidence) if has_text else ""
        return Row(str(file), category, float(np.exp(row.max())), "fused" if has_text else "model", words)
