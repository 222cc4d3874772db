"""What a source of products is, and what reading one of its answers gives.

A source decides and reads; it never fetches: skincare.collecting.collector and skincare.collecting.listing
do that, politely.
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
    """What one answer says of the product that was asked for; with a failure, why it says nothing."""

    images: tuple[ListedImage, ...] = ()
    metadata: Mapping[str, Fact] = field(default_factory=dict)
    # Of the metadata; the images carry their own.
    licence: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class Listing:
    """One page of a list of products."""

    rows: tuple[CatalogueRow, ...]
    n_pages: int


class Source(Protocol):
    """One kind of shop or database. Its methods are pure, and reading is total: any bytes give a Reading."""

    @property
    def name(self) -> str:
        """Return the word by which the command line and the tables know the source."""
        ...

    @property
    def delays_s(self) -> Mapping[str, float]:
        """Return the source's own addresses, which a stand-in replaces, with the least time between two requests."""
        ...

    @property
    def needs_contact(self) -> bool:
        """Tell whether the source asks who reads it."""
        ...

    def catalogue_row(self, row: CatalogueRow) -> CatalogueRow:
        """Return a row of somebody's catalogue with the identity and the category that this source gives it."""
        ...

    def page_url(self, product: Product) -> str:
        """Return what to fetch to learn of a product."""
        ...

    def read(self, content: bytes, url: str, product: Product) -> ParsedProduct:
        """Read the answer that was found, after redirects, at `url`."""
        ...


@runtime_checkable
class Searchable(Source, Protocol):
    """A source that also lists products by a query."""

    @property
    def listing_delay_s(self) -> float:
        """Return the least time between two pages of a list."""
        ...

    def listing_url(self, query: str, page: int) -> str:
        """Return what to fetch for a page, from 1, of a list of products."""
        ...

    def read_listing(self, content: bytes) -> Listing:
        """Read an answer to `listing_url`; ValueError for one that is none."""
        ...


def category_of(own_type: str, table: Mapping[str, str]) -> str:
    """Return the category that a source's own type means, or the type itself: the catalogue reports it as unknown."""
    return table.get(" ".join(own_type.casefold().replace("_", " ").split()), own_type)


@dataclass(frozen=True)
class PageRecord:
    """What the scrape's state keeps of a page."""

    source: str
    licence: str
    metadata: Mapping[str, Fact]


def page_record(source: str, reading: ParsedProduct) -> str:
    """Return a reading as the scrape's state keeps it, as JSON text."""
    facts = {name: [fact.value, fact.source] for name, fact in reading.metadata.items()}
    return json.dumps({"source": source, "licence": reading.licence, "facts": facts}, ensure_ascii=False)


def read_page_record(text: str) -> PageRecord | None:
    """Return what `page_record` wrote; None for a product whose page is not read."""
    if not text:
        return None
    record = json.loads(text)
    return PageRecord(
        record["source"], record["licence"], {name: Fact(*fact) for name, fact in record["facts"].items()}
    )
