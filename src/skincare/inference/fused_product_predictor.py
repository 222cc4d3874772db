"""Structured answers by a model and the reader in its folder, fused as fuse.py fitted them. Imports torch."""

from pathlib import Path

from skincare.evaluation import field_policy, fusion, product_fusion
from skincare.evaluation.field_policy import FieldPolicy
from skincare.evaluation.product_fusion import FieldAnswer
from skincare.inference.base_fused_predictor import BaseFusedPredictor
from skincare.inference.classifier import Classifier
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.image_predictions import ImagePrediction, with_ranking
from skincare.inference.model_predictor import ModelPredictor
from skincare.inference.product_answers import answer_of_text
from skincare.inference.run_confidence import DEFAULT_MAX_ERROR
from skincare.inference.structured_answers import with_label
from skincare.labels import UNKNOWN, labels_of_model
from skincare.text_reading import pack_products
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText


class FusedProductPredictor(BaseFusedPredictor):
    """Predicts products with both: status `fused`, or `model` for an image without text.

    Fields are null below the fusion's own thresholds and below `min_confidence`, or below the threshold that was chosen
    on val for `max_error`. Raises MissingInputError if the model's folder holds no fusion.
    """

    def __init__(
        self, classifier: Classifier, packs: PackReader, *, min_confidence: float | None = None,
        max_error: float | None = None,
    ) -> None:  # fmt: skip
        source = Path(classifier.source)
        self._fusion, notes = product_fusion.read(source)
        folder = source / fusion.READER_FOLDER
        self._products = pack_products.load(folder, labels_of_model(folder, classifier.labels))
        field_policy.check_error_rate([one.wanted for one in self._fusion.values()], max_error)
        chosen = {
            name: field_policy.threshold_for(one.wanted, max_error, DEFAULT_MAX_ERROR)
            if min_confidence is None
            else min_confidence
            for name, one in self._fusion.items()
        }
        self._policy = FieldPolicy(thresholds={name: one for name, one in chosen.items() if one is not None})
        model = ModelPredictor(classifier, "generate", packs=packs, gives_product=True)
        super().__init__(model, packs, notes.get("ocr"))

    def _fuse(self, file: str, pack: PackText, output: DecoderOutput) -> ImagePrediction:
        read = self._products.read(pack, abstains=False)
        of_model = answer_of_text(output.text, dict(output.field_log_probabilities))
        generated = of_model.parsed.product and with_label(of_model.parsed.product, self.labels)
        fused = product_fusion.fuse(
            self._fusion, FieldAnswer(generated, of_model.confidences),
            FieldAnswer(read.product, read.confidences),
        )  # fmt: skip
        assert fused.product is not None
        product = self._policy.kept(fused.product, fused.confidences)
        row = ImagePrediction(
            file, product.category or UNKNOWN, fused.confidences.get("category"),
            "fused" if pack.lines else "model", output.text, text=pack.texts, product=product.model_dump(mode="json"),
            confidences=fused.confidences,
        )  # fmt: skip
        return with_ranking(row, (), self.labels, 0)
