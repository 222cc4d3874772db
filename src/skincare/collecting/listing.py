"""Catalogues for a source: listed by a query, or converted from a user's catalogue.

Later stages take the file as their --catalogue. It is written atomically and never overwritten by a query, so that a
resumed run works on the same products.
"""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from skincare import urls
from skincare.collecting.collector import MAX_PAGE_BYTES, UrlMapping
from skincare.collecting.fetch_errors import FetchError
from skincare.collecting.http_client import HttpClient
from skincare.collecting.sources.source import Searchable, Source
from skincare.errors import StageError
from skincare.importing.category_names import CategoryNames
from skincare.labels import labels_of
from skincare.paths import Layout
from skincare.tables import CATALOGUE, CatalogueRow

logger = logging.getLogger(__name__)

# 100,000 products at 100 a page: more than any category holds.
_MAX_PAGES: Final = 1000


def delay_s(source: Source) -> float:
    """Return the minimum delay between two pages of the source's listing."""
    return source.listing_delay_s if isinstance(source, Searchable) else 0.0


def list_products(source: Source, query: str, url_mapping: UrlMapping, client: HttpClient, layout: Layout) -> Path:
    """Write the products that match any part of the query, unless the file exists; return the file.

    Raises StageError for a source without search and for an invalid response.
    """
    path = layout.listed_products(f"{source.name}_{urls.safe_name(query)}")
    if not isinstance(source, Searchable):
        raise StageError(f"{source.name} cannot be searched; give its products by --catalogue")
    if path.is_file():
        logger.info("%s exists; delete it to list the products again", path)
        return path
    rows: dict[str, CatalogueRow] = {}
    for part in filter(None, map(str.strip, query.split(","))):
        for row in _listed(source, part, url_mapping, client):
            # A listing that changes between two pages repeats products.
            rows.setdefault(row.product_id, row)
        logger.info("%s: %d products up to %s", source.name, len(rows), part)
    CATALOGUE.write(path, rows.values())
    return path


def adopt_catalogue(source: Source, given: Path, layout: Layout) -> Path:
    """Write a user's catalogue with the ids and categories of the source; return the file.

    A category that the source does not map to a label of the root may be a name or an alias of one itself.
    """
    path, labels = layout.listed_products(source.name), labels_of(layout)
    names = CategoryNames(labels, {})
    rows = []
    for given_row in CATALOGUE.read(given):
        row = source.catalogue_row(given_row)
        is_known = row.product_type in labels.names
        category = row.product_type if is_known else names.find(given_row.product_type) or row.product_type
        rows.append(dataclasses.replace(row, product_type=category))
    CATALOGUE.write(path, rows)
    return path


def _listed(source: Searchable, query: str, url_mapping: UrlMapping, client: HttpClient) -> Iterator[CatalogueRow]:
    page, n_pages = 1, 1
    while page <= min(n_pages, _MAX_PAGES):
        url = source.listing_url(query, page)
        try:
            listing = source.read_listing(client.get(url_mapping.fetch_url(url), MAX_PAGE_BYTES).content)
        except (FetchError, ValueError) as error:
            raise StageError(f"{source.name}: {url}: {' '.join(map(str, error.args))}") from error
        yield from listing.rows
        page, n_pages = page + 1, listing.n_pages
