"""Predict image files with a fine-tuned model and the reader in its folder, as fuse.py fitted them. Imports torch."""

from pathlib import Path

import numpy as np

from skincare.errors import StageError
from skincare.evaluation import fusion
from skincare.inference.base_fused_predictor import BaseFusedPredictor
from skincare.inference.classifier import Classifier
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.image_predictions import ImagePrediction, abstain_below, with_ranking
from skincare.inference.model_predictor import ModelPredictor
from skincare.labels import labels_of_model
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader
from skincare.text_reading.split_reader import is_read


class FusedPredictor(BaseFusedPredictor):
    """Predicts labels with both: status `fused`, or `model` for an image without text.

    The answer holds the phrases that the reader found. Raises MissingInputError if the model's folder holds no
    fusion.
    """

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
        super().__init__(ModelPredictor(classifier, notes["decoder"], packs=packs), packs, notes.get("ocr"))
        self.threshold = threshold
        self._top_k = top_k

    def _fuse(self, file: str, pack: PackText, output: DecoderOutput) -> ImagePrediction:
        read = self._reader.predict(pack.lines, pack.other_script)
        has_text = is_read(read.status)
        of_model, of_reader = (np.array([row]) for row in (output.log_probabilities, read.log_probabilities))
        (fused,) = fusion.fuse(self._weights, of_model, of_reader, np.array([has_text]))
        category = self.labels.names[int(fused.argmax())]
        evidence = "; ".join(read.evidence) if has_text else ""
        row = ImagePrediction(
            file, category, float(np.exp(fused.max())), "fused" if has_text else "model", evidence, text=pack.texts
        )  # fmt: skip
        return abstain_below(with_ranking(row, fused, self.labels, self._top_k), self.threshold)
