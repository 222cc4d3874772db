"""LookFantastic: the pages of the reference, of any of its three shapes; a page is the product whose id it ends in."""

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
    """Products by the addresses of their pages, old scheme or new."""

    name: Final = "lookfantastic"
    delays_s: Final[Mapping[str, float]] = {}
    needs_contact: Final = False

    def page_url(self, product: Product) -> str:
        """Return the page's address."""
        return product.url

    def read(self, content: bytes, url: str, product: Product) -> ParsedProduct:
        """Read a page; a redirect to another product's counts as gone."""
        if not _is_page_of(product, url):
            return ParsedProduct(failure=Failure("redirected_away"))
        return read_web_page(content, url, product)

    def catalogue_row(self, row: CatalogueRow) -> CatalogueRow:
        """Return the row with one of the categories where its type means one."""
        return dataclasses.replace(row, product_type=category_of(row.product_type, SHOP_TYPES), source=self.name)


def _is_page_of(product: Product, url: str) -> bool:
    try:
        return urls.product_id(url) == product.product_id
    except ValueError:
        return False
