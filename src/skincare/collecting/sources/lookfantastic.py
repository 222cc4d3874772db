"""LookFantastic, the shop of the reference experiment; the product id is the last number of the URL."""

import dataclasses
from collections.abc import Mapping
from typing import Final

from skincare import urls
from skincare.catalogue import Product
from skincare.collecting.scrape_state import Failure
from skincare.collecting.sources.shop_pages import SHOP_TYPES, read_web_page
from skincare.collecting.sources.source import ParsedProduct, category_of
from skincare.tables import CatalogueRow


class LookFantastic:
    """Products by the URLs of their pages, in the old or new scheme."""

    name: Final = "lookfantastic"
    delays_s: Final[Mapping[str, float]] = {}
    needs_contact: Final = False

    def page_url(self, product: Product) -> str:
        """Return the product's URL."""
        return product.url

    def read(self, content: bytes, url: str, product: Product) -> ParsedProduct:
        """Parse a page; a redirect to another product is a failure."""
        if not _is_page_of(product, url):
            return ParsedProduct(failure=Failure("redirected_away"))
        return read_web_page(content, url, product)

    def catalogue_row(self, row: CatalogueRow) -> CatalogueRow:
        """Return the row with the category of its product type."""
        return dataclasses.replace(row, product_type=category_of(row.product_type, SHOP_TYPES), source=self.name)


def _is_page_of(product: Product, url: str) -> bool:
    try:
        return urls.product_id(url) == product.product_id
    except ValueError:
        return False
