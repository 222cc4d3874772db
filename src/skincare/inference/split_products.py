"""Structured answers of a reader that knows no product of val and test, for evaluation and for fusion."""

from collections.abc import Mapping, Sequence

from skincare.catalogue import Product as CatalogueProduct
from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.evaluation.product_metrics import ScoredProduct
from skincare.inference.product_answers import ProductAnswer
from skincare.labels import Labels
from skincare.product.facts import ProductFacts
from skincare.product.json_answers import ParsedProduct
from skincare.text_reading import split_reader
from skincare.text_reading.pack_products import PackProducts, known_brands_reader
from skincare.text_reading.pack_text import PackText


def fit_on_train(
    parts: Mapping[str, Sequence[Example]],
    products: Sequence[CatalogueProduct],
    texts: Mapping[str, PackText],
    labels: Labels,
) -> PackProducts:
    """Return reader and rules that know no product of val and test, by name, text or brand."""
    reader = split_reader.fit_on_train(parts, products, texts, labels)
    names = [one.name for one in split_reader.without_held_out(parts, products)]
    return PackProducts(reader, known_brands_reader(names))


def answers(
    packs: PackProducts, examples: Sequence[Example], texts: Mapping[str, PackText], *, abstains: bool = True
) -> dict[str, ProductAnswer]:
    """Return image id -> answer, see `PackProducts.read`; raises StageError if the text of a pack was not read."""
    split_reader.check_read(examples, texts)
    found = {one.image_id: packs.read(texts[one.image_id], abstains=abstains) for one in examples}
    return {
        image_id: ProductAnswer(ParsedProduct(one.product, "valid", {}), one.confidences)
        for image_id, one in found.items()
    }


def scored_products(
    examples: Sequence[Example], facts: Mapping[str, ProductFacts], found: Mapping[str, ProductAnswer]
) -> list[ScoredProduct]:
    """Return the answers with their truths, the facts of the products; raises StageError where there are none."""
    if absent := sorted({one.product_id for one in examples} - set(facts)):
        raise StageError(f"No facts of {len(absent)} products, such as {absent[0]}\nRun `python src/product_facts.py`.")
    return [
        ScoredProduct(
            one.image_id, one.product_id, facts[one.product_id].product, found[one.image_id].parsed.product,
            found[one.image_id].parsed.status, frozenset(facts[one.product_id].absent),
            found[one.image_id].confidences,
        )
        for one in examples
    ]  # fmt: skip
