"""Predict image files with a fine-tuned model and the reader in its folder, as fuse.py fitted them. Imports torch."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from skincare.errors import StageError
from skincare.evaluation import fusion
from skincare.inference.classifier import Classifier
from skincare.inference.image_predictions import (
    ImagePrediction,
    InputImage,
    abstain_below,
    pack_of,
    with_ranking,
)
from skincare.inference.model_predictor import ModelPredictor
from skincare.labels import labels_of_model
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.reader import Reader
from skincare.text_reading.split_reader import is_read

logger = logging.getLogger(__name__)


class FusedPredictor:
    """Predicts with both: status `fused`, or `model` for an image without text.

    The answer holds the phrases that the reader found. Raises MissingInputError if the model's folder holds no
    fusion.
    """

    reads_text = True
    needs_pixels = True

    def __init__(
        self, classifier: Classifier, packs: PackReader, *, threshold: float | None = None, top_k: int = 3
    ) -> None:
        source = Path(classifier.source)
        self._weights, notes = fusion.read(source)
        if notes.get("decoder") not in ("rank", "head"):
            raise StageError(f"{source / fusion.FILE}: fitted with an unknown decoder; run `python src/fuse.py` again")
        # Aliases may have changed between the model's training and the fit of the reader.
        folder = source / fusion.READER_FOLDER
        self._reader = Reader.load(folder, labels_of_model(folder, classifier.labels))
        self.packs = packs
        self._model = ModelPredictor(classifier, notes["decoder"], packs=packs)
        if packs.name != notes.get("ocr"):
            logger.warning("The fusion was fitted with another OCR engine: %s", notes.get("ocr"))
        self.name = f"{self._model.name}, fused with the reader, {packs.name}"

        self.classifier = classifier
        self.labels = classifier.labels
        self.threshold = threshold
        self._top_k = top_k

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        with_packs = [replace(image, pack=pack_of(image, self.packs)) for image in images]
        outputs = self._model.outputs(with_packs)
        return [
            found if isinstance(found, ImagePrediction) else self._fuse(image, found.log_probabilities)
            for image, found in zip(with_packs, outputs, strict=True)
        ]

    def _fuse(self, image: InputImage, log_probabilities: Sequence[float]) -> ImagePrediction:
        pack = pack_of(image, self.packs)
        read = self._reader.predict(pack.lines, pack.other_script)
        has_text = is_read(read.status)
        of_model, of_reader = (np.array([row]) for row in (log_probabilities, read.log_probabilities))
        (fused,) = fusion.fuse(self._weights, of_model, of_reader, np.array([has_text]))
        category = self.labels.names[int(fused.argmax())]
        evidence = "; ".join(read.evidence) if has_text else ""
        row = ImagePrediction(
            image.file, category, float(np.exp(fused.max())), "fused" if has_text else "model", evidence,
            text=pack.texts,
        )  # fmt: skip
        return abstain_below(with_ranking(row, fused, self.labels, self._top_k), self.threshold)
