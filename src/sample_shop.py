"""Serve the sample shop: a local web shop with rendered products and the faults of real shops.

In: nothing, or a catalogue with --catalogue.
Out: a server on 127.0.0.1; without --catalogue also csv_data/skincare_products_clean.csv and
csv_data/sample_shop_truth.json (the faults of the shop).
Command: python src/sample_shop.py                        then: python src/scrape.py --root sample_run --shop-url URL
         python src/sample_shop.py --catalogue FILE       a page for every product of FILE
Time: until Ctrl-C.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from skincare import stage
from skincare.catalogue import read_products
from skincare.labels import skincare_labels
from skincare.paths import REPOSITORY, Layout
from skincare.runlog import Summary
from skincare.sample.products import Product, catalogue_product
from skincare.sample.shop import serve, stock

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    root: Path = REPOSITORY / "sample_run"
    """Folder for the shop's catalogue and truth file."""
    port: int = 8000
    """Port to listen on; 0 selects a free one."""
    seed: int = 0
    """Seed of the products and of their faults."""
    catalogue: Path | None = None
    """Serve the products of this catalogue instead, without faults."""


def run(config: Config, layout: Layout) -> Summary:
    """Serve until Ctrl-C."""
    products = _catalogued(config.catalogue) if config.catalogue else stock(layout, config.seed)
    with serve(products, config.port) as url:
        logger.info("%d products at %s (Ctrl-C closes the shop)", len(products), url)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return Summary(headline="closed", counts={"products": len(products)})


def _catalogued(path: Path) -> list[Product]:
    return [
        catalogue_product(one.product_id, one.name, one.category, urlsplit(one.url).path)
        for one in read_products(path, skincare_labels()).products
    ]


def main() -> None:
    """Run the stage from the command line."""
    stage.main("sample_shop", Config, run)


if __name__ == "__main__":
    main()
