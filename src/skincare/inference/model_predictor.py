"""Predict images with a fine-tuned model, by any of its decoders. Imports torch.

A model that was trained with the pack's text as a hint gets the hint of each image: its text is read by OCR first. A
model that was trained with the metadata of product pages is given no hint, and the log says so.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from PIL import Image

from skincare.dataset import hints
from skincare.errors import StageError
from skincare.evaluation.calibration import apply_temperature
from skincare.evaluation.field_policy import FieldPolicy
from skincare.inference.classifier import Classifier, DecodedImage
from skincare.inference.decoder_output import DecoderOutput
from skincare.inference.image_predictions import (
    ImagePrediction,
    InputImage,
    abstain_below,
    failed,
    pack_of,
    with_ranking,
)
from skincare.inference.product_answers import answer_of_text
from skincare.inference.structured_answers import parse_answer, with_label
from skincare.labels import UNKNOWN
from skincare.modeling.settings import DecoderName
from skincare.prompts import target_of
from skincare.text_reading.extraction import PackReader

logger = logging.getLogger(__name__)

# The image processor refuses longer strips. Source: smart_resize of transformers' Qwen2-VL image processor.
MAX_ASPECT_RATIO: Final = 200


class ModelPredictor:
    """Predicts with a model; the answer holds the text that it generated.

    `decoder`: by default the classification head if there is one, else rank if `needs_probabilities`, else generate.
    `gives_product`: rows of a model of structured answers hold the product, not only its category; `policy` calibrates
    its confidences and leaves fields null.
    `packs`: reads the text of packs for a model that was trained with it as a hint; StageError for such a model
    without `packs`.
    """

    needs_pixels = True

    def __init__(
        self, classifier: Classifier, decoder: DecoderName | None = None, temperature: float = 1.0, *,
        needs_probabilities: bool = False, packs: PackReader | None = None, threshold: float | None = None,
        top_k: int = 3, gives_product: bool = False, policy: FieldPolicy = FieldPolicy(),  # noqa: B008
    ) -> None:  # fmt: skip
        self.classifier = classifier
        self._temperature = temperature
        if decoder is None:
            is_ranked = needs_probabilities and target_of(classifier.labels) == "category"
            without_head: DecoderName = "rank" if is_ranked else "generate"
            decoder = without_head if classifier.network.head is None else "head"
        self._decoder = classifier.decoder(decoder)
        self.name = f"{classifier.source}, decoder {decoder}"
        self.labels = classifier.labels
        self.threshold = threshold
        self.packs = packs
        self._top_k = top_k
        self._gives_product = gives_product
        self._policy = policy
        kind = classifier.hint_settings.kind
        self.reads_text = kind == "text"
        if self.reads_text and packs is None:
            raise StageError(
                f"{classifier.source} was trained with the text of packs as a hint; it needs an OCR engine"
            )
        if kind == "metadata":
            logger.warning(
                "%s was trained with metadata of product pages as a hint, which an image does not have: predicting "
                "without hints", classifier.source,
            )  # fmt: skip

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        if self.packs and self.reads_text:
            images = [replace(image, pack=pack_of(image, self.packs)) for image in images]
        return [
            found if isinstance(found, ImagePrediction) else self._prediction(image, found)
            for image, found in zip(images, self.outputs(images), strict=True)
        ]

    def outputs(self, images: Sequence[InputImage]) -> list[DecoderOutput | ImagePrediction]:
        """Return the model's output for each image, in order; for an unusable image a prediction with the reason.

        A model that was trained with the pack's text as a hint gets `pack` of each image.
        """
        unusable = {i: row for i, image in enumerate(images) if (row := self._unusable(image)) is not None}
        queries = [self._query(image) for i, image in enumerate(images) if i not in unusable]
        found = iter([one.answer for one in self.classifier.outputs(queries, self._decoder)])
        return [unusable[i] if i in unusable else next(found) for i in range(len(images))]

    def _unusable(self, image: InputImage) -> ImagePrediction | None:
        """Return the prediction of an image that the model cannot take; None for all others."""
        if image.pixels is None:
            reason = image.reason
        else:
            height, width = image.pixels.shape[:2]
            if max(height, width) < MAX_ASPECT_RATIO * min(height, width):
                return None
            reason = f"aspect_ratio: {width} x {height}"
        row = failed(image.file, reason)
        return replace(row, product={}) if self._gives_product else row

    def _query(self, image: InputImage) -> DecodedImage:
        assert image.pixels is not None
        hint = ""
        if self.reads_text and image.pack is not None:
            hint = hints.text_hint(image.pack.texts, self.classifier.hint_settings.max_bytes)
        return DecodedImage(Image.fromarray(image.pixels), hint)

    def _prediction(self, image: InputImage, output: DecoderOutput) -> ImagePrediction:
        parsed = parse_answer(output.text, self.labels, target_of(self.labels), is_finished=output.is_finished)
        text = image.pack.texts if image.pack else ()
        row = ImagePrediction(image.file, parsed.category or UNKNOWN, None, parsed.status, output.text, text=text)
        if self._gives_product:
            return with_ranking(self._with_product(row, output), (), self.labels, 0)
        if not output.log_probabilities:
            return with_ranking(row, (), self.labels, 0)
        (scaled,) = apply_temperature(np.array([output.log_probabilities]), self._temperature)
        if parsed.category is not None:
            row = replace(row, probability=float(np.exp(scaled[self.labels.index(parsed.category)])))
        return abstain_below(with_ranking(row, scaled, self.labels, self._top_k), self.threshold)

    def _with_product(self, row: ImagePrediction, output: DecoderOutput) -> ImagePrediction:
        """Return a row with the product of the output, empty where the text has none, and its confidences."""
        answer = answer_of_text(output.text, dict(output.field_log_probabilities))
        if answer.parsed.product is None:
            return replace(row, product={})
        found = with_label(answer.parsed.product, self.labels)
        calibrated = self._policy.calibrated(found, answer.confidences)
        product = self._policy.kept(found, calibrated)
        row = replace(
            row, product=product.model_dump(mode="json"), confidences=calibrated, probability=calibrated.get("category")
        )  # fmt: skip
        return row if product.category is not None else replace(row, category=UNKNOWN)
