"""The interface of a product source and the results of its parsers.

A source builds URLs and parses responses; skincare.collecting.collector and skincare.collecting.listing fetch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from skincare.catalogue import Product
from skincare.collecting.metadata import Fact
from skincare.collecting.scrape_state import Failure, ListedImage
from skincare.tables import CatalogueRow


@dataclass(frozen=True)
class ParsedProduct:
    """The parsed response for one product, or the failure."""

    images: tuple[ListedImage, ...] = ()
    metadata: Mapping[str, Fact] = field(default_factory=dict)
    # Licence of the metadata; each image has its own.
    licence: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class Listing:
    """One page of a list of products."""

    rows: tuple[CatalogueRow, ...]
    n_pages: int


class Source(Protocol):
    """One kind of shop or database. Methods are pure; `read` accepts any bytes."""

    @property
    def name(self) -> str:
        """Return the name of the source on the command line and in tables."""
        ...

    @property
    def delays_s(self) -> Mapping[str, float]:
        """Return the origins of the source, which --shop-url replaces, with their minimum delays in seconds."""
        ...

    @property
    def needs_contact(self) -> bool:
        """Return whether the source requires --contact."""
        ...

    def catalogue_row(self, row: CatalogueRow) -> CatalogueRow:
        """Return a row of a user's catalogue with the id and category of this source."""
        ...

    def page_url(self, product: Product) -> str:
        """Return the URL of a product's page or API response."""
        ...

    def read(self, content: bytes, url: str, product: Product) -> ParsedProduct:
        """Parse the response that was found, after redirects, at `url`."""
        ...


@runtime_checkable
class Searchable(Source, Protocol):
    """A source that also lists products by a query."""

    @property
    def listing_delay_s(self) -> float:
        """Return the minimum delay between two pages of a listing, in seconds."""
        ...

    def listing_url(self, query: str, page: int) -> str:
        """Return the URL of a page, from 1, of a product listing."""
        ...

    def read_listing(self, content: bytes) -> Listing:
        """Parse a response to `listing_url`; raises ValueError if it is invalid."""
        ...


def category_of(own_type: str, table: Mapping[str, str]) -> str:
    """Return the category of a source's product type; an unknown type is returned and reported by the catalogue."""
    return table.get(" ".join(own_type.casefold().replace("_", " ").split()), own_type)


@dataclass(frozen=True)
class PageRecord:
    """The metadata of a page in the scrape's state."""

    source: str
    licence: str
    metadata: Mapping[str, Fact]


def page_record(source: str, reading: ParsedProduct) -> str:
    """Return the metadata of a parsed product as JSON for the scrape's state."""
    facts = {name: [fact.value, fact.source] for name, fact in reading.metadata.items()}
    return json.dumps({"source": source, "licence": reading.licence, "facts": facts}, ensure_ascii=False)


def read_page_record(text: str) -> PageRecord | None:
    """Parse the JSON of `page_record`; None for an empty text."""
    if not text:
        return None
    record = json.loads(text)
    return PageRecord(
        record["source"], record["licence"], {name: Fact(*fact) for name, fact in record["facts"].items()}
    )
