"""Structured answers by a model and the reader in its folder, fused as fuse.py fitted them. Imports torch."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from skincare.evaluation import field_policy, fusion, product_fusion
from skincare.evaluation.field_policy import FieldPolicy
from skincare.evaluation.product_fusion import FieldAnswer
from skincare.inference.classifier import Classifier
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.image_predictions import ImagePrediction, InputImage, pack_of, with_ranking
from skincare.inference.model_predictor import ModelPredictor
from skincare.inference.product_answers import answer_of_text
from skincare.inference.run_confidence import DEFAULT_MAX_ERROR
from skincare.labels import UNKNOWN, labels_of_model
from skincare.text_reading import pack_products
from skincare.text_reading.extraction import PackReader

logger = logging.getLogger(__name__)


class FusedProductPredictor:
    """Predicts with both: status `fused`, or `model` for an image without text.

    Fields are null below the fusion's own thresholds and below `min_confidence`, or below the threshold that was chosen
    on val for `max_error`. Raises MissingInputError if the model's folder holds no fusion.
    """

    reads_text = True
    needs_pixels = True
    threshold: float | None = None

    def __init__(
        self, classifier: Classifier, packs: PackReader, *, min_confidence: float | None = None,
        max_error: float | None = None, top_k: int = 3,
    ) -> None:  # fmt: skip
        source = Path(classifier.source)
        self._fusion, notes = product_fusion.read(source)
        folder = source / fusion.READER_FOLDER
        self._products = pack_products.load(folder, labels_of_model(folder, classifier.labels))
        chosen = {
            name: field_policy.threshold_for(one.wanted, max_error, DEFAULT_MAX_ERROR)
            if min_confidence is None
            else min_confidence
            for name, one in self._fusion.items()
        }
        self._policy = FieldPolicy(thresholds={name: one for name, one in chosen.items() if one is not None})
        self.packs = packs
        self._model = ModelPredictor(classifier, "generate", packs=packs, gives_product=True)
        if packs.name != notes.get("ocr"):
            logger.warning("The fusion was fitted with another OCR engine: %s", notes.get("ocr"))
        self.name = f"{self._model.name}, fused with the reader, {packs.name}"
        self.classifier = classifier
        self.labels = classifier.labels
        self._top_k = top_k

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        with_packs = [replace(image, pack=pack_of(image, self.packs)) for image in images]
        return [
            replace(found, product={}) if isinstance(found, ImagePrediction) else self._fuse(image, found)
            for image, found in zip(with_packs, self._model.outputs(with_packs), strict=True)
        ]

    def _fuse(self, image: InputImage, output: DecoderOutput) -> ImagePrediction:
        pack = pack_of(image, self.packs)
        read = self._products.read(pack, abstains=False)
        of_model = answer_of_text(output.text, dict(output.field_log_probabilities))
        fused = product_fusion.fuse(
            self._fusion, FieldAnswer(of_model.parsed.product, of_model.confidences),
            FieldAnswer(read.product, read.confidences),
        )  # fmt: skip
        assert fused.product is not None
        product = self._policy.kept(fused.product, fused.confidences)
        row = ImagePrediction(
            image.file, product.category or UNKNOWN, fused.confidences.get("category"),
            "fused" if pack.lines else "model", output.text, text=pack.texts, product=product.model_dump(mode="json"),
            confidences=fused.confidences,
        )  # fmt: skip
        return with_ranking(row, (), self.labels, 0)
