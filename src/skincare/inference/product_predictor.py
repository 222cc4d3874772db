"""Structured answers for images in no dataset, by the text printed on the pack: OCR, then rules. No torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skincare.catalogue import read_products
from skincare.labels import Labels
from skincare.paths import Layout
from skincare.product.brands import brands_of, common_words
from skincare.product.schema import Product
from skincare.text_reading.extraction import PackReader
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.product_reader import ProductReader
from skincare.text_reading.reader import Reader


@dataclass(frozen=True)
class ProductPrediction:
    """The structured answer for one image; `product` is None where the file is no image. reason: why it is none."""

    file: str
    status: str
    product: Product | None
    reason: str = ""

    def to_json(self) -> str:
        """Return one line of JSON."""
        product = self.product.model_dump(mode="json") if self.product else None
        values = {"file": self.file, "status": self.status, "product": product, "reason": self.reason}
        # A file name that is no UTF-8 holds lone surrogates.
        return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


class ProductPredictor:
    """Predicts products; the category is the reader's, where it does not abstain."""

    def __init__(self, reader: Reader, products: ProductReader, packs: PackReader) -> None:
        self.name = f"product reader, {packs.name}"
        self._reader = reader
        self._products = products
        self._packs = packs

    def __call__(self, files: Sequence[Path]) -> list[ProductPrediction]:
        """Return one prediction per file, in order."""
        return [self._prediction(pack) for pack in self._packs.read(files)]

    def _prediction(self, pack: PackText) -> ProductPrediction:
        if pack.status in ("unreadable", "failed"):
            return ProductPrediction(pack.file, "unreadable", None, pack.reason)
        found = self._reader.predict(pack.lines, pack.other_script)
        category = found.label if found.status == "read" else None
        return ProductPrediction(pack.file, pack.status, self._products.read(pack.lines, category))


def product_reader(layout: Layout, labels: Labels) -> ProductReader:
    """Return a reader that knows the brands of the catalogue, where there is one."""
    if not layout.catalogue.is_file():
        return ProductReader()
    return known_brands_reader([one.name for one in read_products(layout.catalogue, labels).products])


def known_brands_reader(names: Sequence[str]) -> ProductReader:
    """Return a reader that knows the brands and the common words of products' names."""
    brands = brands_of(names)
    return ProductReader(tuple(sorted(set(brands.values()))), common_words(brands))
