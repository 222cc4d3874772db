"""The products of a catalogue: rows in, distinct products and invalid rows out.

One page is one product, whatever the number of sizes that the catalogue lists: the product id is the last group of
digits in the URL's path. The reference catalogue's 1,138 rows are 1,126 distinct products; the others are sizes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from skincare import urls
from skincare.labels import Labels
from skincare.tables import CATALOGUE, CatalogueRow


@dataclass(frozen=True, slots=True)
class Product:
    """One page of the shop."""

    product_id: str
    url: str
    slug: str
    name: str
    category: str
    # The URL's `variation=` (a shade or size of the page); not part of the identity.
    variation: str = ""
    # Name of the product's source, see skincare.collecting.sources; empty: the run's default.
    source: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the catalogue, numbered from 1 below the header, that is invalid or contradicts an earlier row."""

    row: int
    url: str
    reason: Literal["bad_url", "no_product_id", "unknown_category", "conflicting_category", "conflicting_url"]
    detail: str


@dataclass(frozen=True)
class Catalogue:
    """Distinct products in the order of their first rows; every other row is a repetition or a problem."""

    products: tuple[Product, ...]
    problems: tuple[Problem, ...]
    n_rows: int

    @property
    def rejected(self) -> tuple[Problem, ...]:
        """Return the problems of rows without a product; the other problems are contradictions."""
        return tuple(problem for problem in self.problems if not problem.reason.startswith("conflicting_"))


def read_products(path: Path, labels: Labels) -> Catalogue:
    """Return the products of a catalogue file.

    The first row of a product wins; a later one with another category or URL is reported as a problem.
    Raises MissingInputError if the file is absent and StageError if it is not such a table.
    """
    products: dict[str, Product] = {}
    problems: list[Problem] = []
    number = 0
    for number, row in enumerate(CATALOGUE.rows(path), start=1):
        found = _product(number, row, labels)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        first = products.setdefault(found.product_id, found)
        problems.extend(_contradictions(number, first, found))
    return Catalogue(tuple(products.values()), tuple(problems), number)


def _product(number: int, row: CatalogueRow, labels: Labels) -> Product | Problem:
    try:
        url = urls.canonical_url(row.product_url)
    except ValueError as error:
        return Problem(number, row.product_url[: urls.MAX_URL], "bad_url", str(error))
    try:
        product_id = _stated_id(row) or urls.product_id(url)
    except ValueError as error:
        return Problem(number, url, "no_product_id", str(error))
    category = row.product_type.strip()
    if category not in labels.names:
        return Problem(number, url, "unknown_category", repr(category[:100]))
    variation = parse_qs(urlsplit(row.product_url).query).get("variation", [""])[0]
    name = " ".join(row.product_name.replace("\0", " ").split())
    return Product(product_id, url, urls.product_slug(url, product_id), name, category, variation, row.source.strip())


def _stated_id(row: CatalogueRow) -> str:
    """Return the row's product id; raises ValueError if it cannot be part of a file name."""
    product_id = row.product_id.strip()
    if product_id and not re.fullmatch(r"[0-9a-z]{1,20}", product_id):
        raise ValueError(f"no usable product id: {product_id[:100]!r}")
    return product_id


def _contradictions(number: int, first: Product, found: Product) -> list[Problem]:
    problems = []
    if found.category != first.category:
        detail = f"{found.category}, but {first.category} in an earlier row"
        problems.append(Problem(number, found.url, "conflicting_category", detail))
    if found.url != first.url:
        problems.append(Problem(number, found.url, "conflicting_url", f"{first.url} in an earlier row"))
    return problems
