"""Any shop: its pages state their product for machines, by whichever syntax, or only show it.

Shops have no ids in common: a product is its page's address, from which an id of 12 hexadecimal digits is made.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Final

from skincare import urls
from skincare.catalogue import Product
from skincare.collecting.scrape_state import Failure
from skincare.collecting.sources.shop_pages import SHOP_TYPES, read_web_page
from skincare.collecting.sources.source import ParsedProduct, category_of
from skincare.tables import CatalogueRow


class WebPage:
    """Products by the addresses of their pages, of any shop."""

    name: Final = "web_page"
    delays_s: Final[Mapping[str, float]] = {}
    needs_contact: Final = False

    def page_url(self, product: Product) -> str:
        """Return the page's address."""
        return product.url

    def read(self, content: bytes, url: str, product: Product) -> ParsedProduct:
        """Read a page; after a redirect the last part of its address must be the product's own."""
        if urls.last_words(url) != urls.last_words(product.url):
            return ParsedProduct(failure=Failure("redirected_away"))
        return read_web_page(content, url, product)

    def catalogue_row(self, row: CatalogueRow) -> CatalogueRow:
        """Return the row with an id made from its address; one without a usable address stays for the report."""
        category = category_of(row.product_type, SHOP_TYPES)
        row = dataclasses.replace(row, product_type=category, source=self.name)
        try:
            address = urls.canonical_url(row.product_url)
        except ValueError:
            return row
        digest = hashlib.sha256(address.partition("://")[2].encode()).hexdigest()
        return dataclasses.replace(row, product_id=row.product_id or digest[:12])
