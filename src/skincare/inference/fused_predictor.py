"""Predict image files with a fine-tuned model and the reader in its folder, as fuse.py fitted them. Imports torch."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skincare.errors import StageError
from skincare.evaluation import fusion
from skincare.inference.classifier import Classifier
from skincare.inference.image_predictions import ImagePrediction
from skincare.inference.model_predictor import ModelPredictor
from skincare.labels import labels_of_model
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader, ReaderPrediction
from skincare.text_reading.split_reader import is_read

logger = logging.getLogger(__name__)


class FusedPredictor:
    """Predicts with both: status `fused`, or `model` for an image without text.

    The answer column holds the phrases that the reader found. Raises MissingInputError if the model's folder holds no
    fusion.
    """

    def __init__(self, classifier: Classifier, packs: PackReader) -> None:
        source = Path(classifier.source)
        self._weights, notes = fusion.read(source)
        if notes.get("decoder") not in ("rank", "head"):
            raise StageError(f"{source / fusion.FILE}: fitted with an unknown decoder; run `python src/fuse.py` again")
        # Aliases may have changed between the model's training and the fit of the reader.
        folder = source / fusion.READER_FOLDER
        self._reader = Reader.load(folder, labels_of_model(folder, classifier.labels))
        self._packs = packs
        self._model = ModelPredictor(classifier, notes["decoder"], packs=packs)
        if packs.name != notes.get("ocr"):
            logger.warning("The fusion was fitted with another OCR engine: %s", notes.get("ocr"))
        self.name = f"{self._model.name}, fused with the reader, {packs.name}"

    def __call__(self, files: Sequence[Path]) -> list[ImagePrediction]:
        """Return one prediction per file, in order."""
        packs = self._packs.read(files)
        return [
            found if isinstance(found, ImagePrediction) else self._fuse(file, found.log_probabilities, self._read(pack))
            for file, pack, found in zip(files, packs, self._model.outputs(files, packs), strict=True)
        ]

    def _read(self, pack: PackText) -> ReaderPrediction:
        return self._reader.predict(pack.lines, pack.other_script)

    def _fuse(self, file: Path, log_probabilities: Sequence[float], read: ReaderPrediction) -> ImagePrediction:
        has_text = is_read(read.status)
        of_model, of_reader = (np.array([row]) for row in (log_probabilities, read.log_probabilities))
        (row,) = fusion.fuse(self._weights, of_model, of_reader, np.array([has_text]))
        category = self._reader.labels.names[int(row.argmax())]
        evidence = "; ".join(read.evidence) if has_text else ""
        return ImagePrediction(
            str(file), category, float(np.exp(row.max())), "fused" if has_text else "model", evidence
        )
