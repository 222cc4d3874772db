"""Collect the known facts of each product, by field with their source, as the truth of structured answers.

In: csv_data/skincare_products_clean.csv; csv_data/products_metadata.csv where scrape.py has written it;
csv_data/stated_facts.csv, an optional table of yours: values that you know, and `-` where a product has none.

Out: clean_dataset/annotations/products.jsonl, plots/product_coverage.png, log/product_facts.json (how many products
have each field, by source and by category, and how many are known to have none, by source).

Command: python src/product_facts.py

Time: a second for 1,000 products.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from skincare import runlog, stage
from skincare.catalogue import Product as CatalogueProduct
from skincare.catalogue import read_products
from skincare.labels import labels_of
from skincare.paths import Layout
from skincare.product.brands import brands_of, common_words, well_known_brand_of
from skincare.product.coverage_plot import draw_coverage
from skincare.product.facts import Statement, product_facts
from skincare.product.schema import FIELDS
from skincare.product.stated_facts import read_stated_facts
from skincare.product.store import KnownProduct, write_products
from skincare.runlog import Summary
from skincare.tables import CATALOGUE, METADATA, CatalogueRow, MetadataRow

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""


def run(config: Config, layout: Layout) -> Summary:
    """Write the facts of every product of the catalogue, and count the products with each field."""
    del config
    found = read_products(layout.catalogue, labels_of(layout))
    rows = {" ".join(row.product_name.split()): row for row in reversed(CATALOGUE.read(layout.catalogue))}
    stated = read_stated_facts(layout.stated_facts)
    known = known_products(found.products, rows, _metadata(layout), stated)
    not_in_catalogue = sorted(set(stated) - {one.product_id for one in known})
    if not_in_catalogue:
        logger.warning(
            "%s: %d products are not in the catalogue and are left out: %s",
            layout.stated_facts, len(not_in_catalogue), ", ".join(not_in_catalogue[:20]),
        )  # fmt: skip
    runlog.remove_summary("product_facts", layout)
    write_products(layout.product_facts, known)
    coverage = coverage_by_source(known)
    draw_coverage(coverage, len(known), layout.plot("product_coverage"))
    shares = ", ".join(f"{field} {sum(counts.values())}" for field, counts in coverage.items() if counts)
    logger.info("Products with each field: %s", shares)
    return Summary(
        headline=f"{len(known):,} products, {sum(len(one.facts.sources) for one in known):,} values",
        counts={"products": len(known), "rejected rows": len(found.rejected)},
        results={
            "coverage": coverage,
            "coverage_by_category": coverage_by_category(known),
            "absent": absent_by_source(known),
            "stated_products_not_in_catalogue": not_in_catalogue,
        },
    )


def known_products(
    products: Sequence[CatalogueProduct], rows: Mapping[str, CatalogueRow], metadata: Mapping[str, MetadataRow],
    stated: Mapping[str, Sequence[Statement]],
) -> list[KnownProduct]:  # fmt: skip
    """Return the known facts of each product; rows: catalogue rows by name, metadata and stated: by product id."""
    brands = brands_of(one.name for one in products)
    common = common_words(brands)
    return [
        KnownProduct(
            one.product_id,
            product_facts(
                one.category,
                rows.get(one.name),
                metadata.get(one.product_id),
                brands.get(one.name, ""),
                well_known_brand_of(one.name, common),
                stated.get(one.product_id, ()),
            ),
        )
        for one in products
    ]


def coverage_by_source(known: Sequence[KnownProduct]) -> dict[str, dict[str, int]]:
    """Return field -> source -> number of products, the most frequent source first."""
    return _counted_by_source(one.facts.sources for one in known)


def absent_by_source(known: Sequence[KnownProduct]) -> dict[str, dict[str, int]]:
    """Return field -> source -> number of products that are known to lack it, the most frequent source first."""
    return _counted_by_source(one.facts.absent for one in known)


def _counted_by_source(sources: Iterable[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
    for source_of in sources:
        for field, source in source_of.items():
            counts[field][source] += 1
    return {field: dict(found.most_common()) for field, found in counts.items()}


def coverage_by_category(known: Sequence[KnownProduct]) -> dict[str, dict[str, int]]:
    """Return category -> field -> number of products, with the number of all under `products`."""
    found: dict[str, Counter[str]] = {}
    for one in known:
        counts = found.setdefault(str(one.facts.product.category), Counter())
        counts.update(["products", *one.facts.sources])
    return {category: {key: found[category][key] for key in ("products", *FIELDS)} for category in sorted(found)}


def _metadata(layout: Layout) -> dict[str, MetadataRow]:
    if not layout.metadata_table.is_file():
        logger.info("No %s: only the catalogue is read. scrape.py writes it.", layout.metadata_table)
        return {}
    return {row.product_id: row for row in METADATA.read(layout.metadata_table)}


def main() -> None:
    """Run the stage from the command line."""
    stage.main("product_facts", Config, run)


if __name__ == "__main__":
    main()
