"""The products that a source is to give, as a catalogue of the usual columns: found by a query, or from somebody's own.

The file is the contract with the stages that follow: they take it as their --catalogue. It is written whole or not at
all, and once it is there it stays, so that a run that goes on works on the same products.
"""

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
from skincare.paths import Layout
from skincare.tables import CATALOGUE, CatalogueRow

logger = logging.getLogger(__name__)

# 100,000 products by 100: more than any category holds.
_MAX_PAGES: Final = 1000


def delay_s(source: Source) -> float:
    """Return the least time between two pages of the source's list."""
    return source.listing_delay_s if isinstance(source, Searchable) else 0.0


def list_products(source: Source, query: str, url_mapping: UrlMapping, client: HttpClient, layout: Layout) -> Path:
    """Write the products that answer any of the query's parts, if that is not done yet; return the file.

    Raises StageError for a source without a list and for an answer that is none.
    """
    path = layout.listed_products(f"{source.name}_{urls.safe_name(query)}")
    if not isinstance(source, Searchable):
        raise StageError(f"{source.name} cannot be searched; give its products by --catalogue")
    if path.is_file():
        logger.info("%s is there; remove it to list anew", path)
        return path
    rows: dict[str, CatalogueRow] = {}
    for part in filter(None, map(str.strip, query.split(","))):
        for row in _listed(source, part, url_mapping, client):
            # A list that changes while it is read shows a product twice.
            rows.setdefault(row.product_id, row)
        logger.info("%s: %d products up to %s", source.name, len(rows), part)
    CATALOGUE.write(path, rows.values())
    return path


def adopt_catalogue(source: Source, given: Path, layout: Layout) -> Path:
    """Write somebody's catalogue with the identities and categories that the source gives its rows; return the file."""
    path = layout.listed_products(source.name)
    CATALOGUE.write(path, [source.catalogue_row(row) for row in CATALOGUE.read(given)])
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
