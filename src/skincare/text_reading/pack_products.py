"""Products from the text of packs: the reader's category and the rules' other fields, with confidences."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skincare.catalogue import read_products
from skincare.errors import StageError
from skincare.files import write_json
from skincare.labels import Labels
from skincare.paths import Layout
from skincare.product.brands import brands_of, common_words
from skincare.product.schema import Product
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.product_confidence import line_confidences
from skincare.text_reading.product_reader import ProductReader
from skincare.text_reading.reader import Reader, ReaderPrediction
from skincare.text_reading.split_reader import is_read

_RULES: Final = "product_reader.json"


@dataclass(frozen=True)
class PackProduct:
    """What was read off a pack. category: the reader's prediction; confidences: of the values of the product."""

    category: ReaderPrediction
    product: Product
    confidences: dict[str, float]


@dataclass(frozen=True)
class PackProducts:
    """Extracts products from packs. reader: predicts the category; rules: extract the other fields."""

    reader: Reader
    rules: ProductReader

    def read(self, pack: PackText, *, abstains: bool = True) -> PackProduct:
        """Return the product of a pack; its category is null below the reader's threshold.

        With `abstains` False it is the likeliest category of a pack with text, for a fusion by confidence.
        """
        found = self.reader.predict(pack.lines, pack.other_script)
        category = found.label if found.status == "read" else None
        if not abstains and is_read(found.status):
            scores = found.log_probabilities
            category = self.reader.labels.names[scores.index(max(scores))]
        product = self.rules.read(pack.lines, category)
        confidences = line_confidences(product, pack.lines)
        if category is not None:
            confidences["category"] = found.confidence
        return PackProduct(found, product, confidences)

    def save(self, folder: Path) -> None:
        """Write reader and rules into a folder."""
        self.reader.save(folder)
        self.reader.labels.write(folder)
        words = sorted(self.rules.common_words)
        write_json(folder / _RULES, {"brands": list(self.rules.brands), "common_words": words})


def load(folder: Path, labels: Labels) -> PackProducts:
    """Return what `save` wrote; raises StageError for damaged files."""
    path = folder / _RULES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        brands, words = (tuple(map(str, found[name])) for name in ("brands", "common_words"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StageError(f"{path}: not the rules of a reader ({error!r}); run `python src/fuse.py` again") from error
    return PackProducts(Reader.load(folder, labels), ProductReader(brands, frozenset(words)))


def product_reader(layout: Layout, labels: Labels) -> ProductReader:
    """Return a reader that knows the brands of the catalogue, where there is one."""
    if not layout.catalogue.is_file():
        return ProductReader()
    return known_brands_reader([one.name for one in read_products(layout.catalogue, labels).products])


def known_brands_reader(names: Sequence[str]) -> ProductReader:
    """Return a reader that knows the brands and the common words of products' names."""
    brands = brands_of(names)
    return ProductReader(tuple(sorted(set(brands.values()))), common_words(brands))
