"""Structured answers for images in no dataset, by the text printed on the pack: OCR, then rules. No torch."""

from collections.abc import Sequence
from dataclasses import replace

from skincare.catalogue import read_products
from skincare.inference.image_predictions import ImagePrediction, InputImage, failed, pack_of, with_ranking
from skincare.labels import UNKNOWN, Labels
from skincare.paths import Layout
from skincare.product.brands import brands_of, common_words
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.product_reader import ProductReader
from skincare.text_reading.reader import Reader


class ProductPredictor:
    """Predicts products; the category is the reader's, where it does not abstain."""

    reads_text = True
    needs_pixels = False

    def __init__(self, reader: Reader, products: ProductReader, packs: PackReader, top_k: int = 3) -> None:
        self.name = f"product reader, {packs.name}"
        self.labels = reader.labels
        self.threshold: float | None = reader.threshold
        self._reader = reader
        self._products = products
        self.packs = packs
        self._top_k = top_k

    def predict(self, images: Sequence[InputImage]) -> list[ImagePrediction]:
        """Return one prediction per image, in order."""
        return [self._prediction(image.file, pack_of(image, self.packs)) for image in images]

    def _prediction(self, file: str, pack: PackText) -> ImagePrediction:
        if pack.status in ("unreadable", "failed"):
            return replace(failed(file, pack.reason, pack.status), product={})
        found = self._reader.predict(pack.lines, pack.other_script)
        product = self._products.read(pack.lines, found.label if found.status == "read" else None)
        has_probability = found.status in ("read", "abstained")
        row = ImagePrediction(
            file, found.label or UNKNOWN, found.confidence if has_probability else None, pack.status,
            text=pack.texts, product=product.model_dump(mode="json"),
        )  # fmt: skip
        return with_ranking(row, found.log_probabilities, self.labels, self._top_k) if has_probability else row


def product_reader(layout: Layout, labels: Labels) -> ProductReader:
    """Return a reader that knows the brands of the catalogue, where there is one."""
    if not layout.catalogue.is_file():
        return ProductReader()
    return known_brands_reader([one.name for one in read_products(layout.catalogue, labels).products])


def known_brands_reader(names: Sequence[str]) -> ProductReader:
    """Return a reader that knows the brands and the common words of products' names."""
    brands = brands_of(names)
    return ProductReader(tuple(sorted(set(brands.values()))), common_words(brands))
