"""Structured answers for images in no dataset, by the text printed on the pack: OCR, then rules. No torch."""

from collections.abc import Sequence
from dataclasses import replace

from skincare.evaluation.field_policy import FieldPolicy
from skincare.inference.image_predictions import ImagePrediction, InputImage, failed, pack_of, with_ranking
from skincare.labels import UNKNOWN
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_products import PackProducts
from skincare.text_reading.pack_text import PackText


class ProductPredictor:
    """Predicts products; the category is the reader's, where it does not abstain.

    policy: leaves fields null whose OCR confidence is below a threshold.
    """

    reads_text = True
    needs_pixels = False

    def __init__(
        self, products: PackProducts, packs: PackReader, top_k: int = 3, policy: FieldPolicy = FieldPolicy()  # noqa: B008
    ) -> None:  # fmt: skip
        self.name = f"product reader, {packs.name}"
        self.labels = products.reader.labels
        self.threshold: float | None = products.reader.threshold
        self._products = products
        self.packs = packs
        self._top_k = top_k
        self._policy = policy

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        return [self._prediction(image.file, pack_of(image, self.packs)) for image in images]

    def _prediction(self, file: str, pack: PackText) -> ImagePrediction:
        if pack.status in ("unreadable", "failed"):
            return replace(failed(file, pack.reason, pack.status), product={})
        read = self._products.read(pack)
        found = read.category
        product = self._policy.kept(read.product, read.confidences)
        has_probability = found.status in ("read", "abstained")
        row = ImagePrediction(
            file, found.label or UNKNOWN, found.confidence if has_probability else None, pack.status,
            text=pack.texts, product=product.model_dump(mode="json"), confidences=read.confidences,
        )  # fmt: skip
        return with_ranking(row, found.log_probabilities, self.labels, self._top_k) if has_probability else row
