"""Any shop, with or without structured data on its pages.

The product id is a hash of the page's URL, 12 hexadecimal digits.
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
    """Products by the URLs of their pages."""

    name: Final = "web_page"
    delays_s: Final[Mapping[str, float]] = {}
    needs_contact: Final = False

    def page_url(self, product: Product) -> str:
        """Return the product's URL."""
        return product.url

    def read(self, content: bytes, url: str, product: Product) -> ParsedProduct:
        """Parse a page; a redirect to a URL with another last segment is a failure."""
        if urls.last_words(url) != urls.last_words(product.url):
            return ParsedProduct(failure=Failure("redirected_away"))
        return read_web_page(content, url, product)

    def catalogue_row(self, row: CatalogueRow) -> CatalogueRow:
        """Return the row with an id from its URL; a row with an invalid URL is unchanged."""
        category = category_of(row.product_type, SHOP_TYPES)
        row = dataclasses.replace(row, product_type=category, source=self.name)
        try:
            address = urls.canonical_url(row.product_url)
        except ValueError:
            return row
        digest = hashlib.sha256(address.partition("://")[2].encode()).hexdigest()
        return dataclasses.replace(row, product_id=row.product_id or digest[:12])
