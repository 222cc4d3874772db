"""Predicts images with a fine-tuned model and the reader of its folder, as fuse.py fitted them. Imports torch."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skincare.categories import CATEGORIES
from skincare.errors import StageError
from skincare.evaluation import fusion
from skincare.inference.image_predictions import Row, open_image
from skincare.inference.model_predictor import ModelPredictor, Prompt
from skincare.text_reading.ocr import EngineName, OcrEngine, make_engine
from skincare.text_reading.reader import Reader, ReaderPrediction
from skincare.text_reading.split_reader import is_read

logger = logging.getLogger(__name__)


class FusedPredictor:
    """Asks both. Status `fused`, or `model` where no text was read; the answer column holds the words that the reader
    went by.

    Raises MissingInputError where the model's folder holds no fusion.
    """

    def __init__(self, source: Path, ocr: EngineName | OcrEngine) -> None:
        self._weights, notes = fusion.read(source)
        if notes.get("decoder") not in ("rank", "head"):
            raise StageError(f"{source / fusion.FILE}: fitted with an unknown decoder; run `python src/fuse.py` again")
        self._reader = Reader.load(source / fusion.READER_FOLDER)
        self._engine = make_engine(ocr) if isinstance(ocr, str) else ocr
        self._model = ModelPredictor(str(source), notes["decoder"], 1.0, needs_probabilities=True, ocr=self._engine)
        if self._engine.name != notes.get("ocr"):
            logger.warning("The fusion was fitted with other OCR (%s) than reads now", notes.get("ocr"))
        self.name = f"{self._model.name}, fused with the reader, {self._engine.name}"

    def __call__(self, files: Sequence[Path]) -> list[Row]:
        """Return one row per file, in order; they go through the model as one batch."""
        rows: dict[Path, Row] = {}
        prompts: dict[Path, Prompt] = {}
        told: dict[Path, ReaderPrediction] = {}
        for file in files:
            image = open_image(file)
            if isinstance(image, Row):
                rows[file] = image
                continue
            lines = self._engine.read(image)
            told[file], prompts[file] = self._reader.predict(lines), self._model.prompt(image, lines)
        answers = self._model.answers(list(prompts.values()))
        for (file, read), answer in zip(told.items(), answers, strict=True):
            rows[file] = self._row(file, answer.log_probabilities, read)
        return [rows[file] for file in files]

    def _row(self, file: Path, model: Sequence[float], read: ReaderPrediction) -> Row:
        has_text = is_read(read.status)
        said, told = (np.array([some]) for some in (model, read.log_probabilities))
        (row,) = fusion.fuse(self._weights, said, told, np.array([has_text]))
        category = CATEGORIES[int(row.argmax())]
        words = "; ".join(read.evidence) if has_text else ""
        return Row(str(file), category, float(np.exp(row.max())), "fused" if has_text else "model", words)
