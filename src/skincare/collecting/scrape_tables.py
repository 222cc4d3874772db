"""Tables and counts of a scrape: the state and the catalogue's problems in, rows and counts out.

Only products of the current catalogue are included. Rows hold no times, so the same shop gives the same bytes, and
are yielded sorted and one at a time, so memory does not grow with their number.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from skincare.catalogue import Problem
from skincare.collecting.metadata import FIELDS
from skincare.collecting.scrape_state import ScrapeStateReader
from skincare.collecting.sources.source import read_page_record
from skincare.tables import FailureRow, ImageRow, MetadataRow, natural_key

_IMAGES: Final = "FROM images JOIN products USING (product_id) WHERE position IS NOT NULL AND images.status = "


def image_rows(state: ScrapeStateReader) -> Iterator[ImageRow]:
    """Yield one row per image on disk."""
    query = (
        "SELECT url, product_id || '_' || n, product_id, file, source_url, width, height, n_bytes, sha256, "
        "licence, attribution "
        "FROM images JOIN products USING (product_id) WHERE product_id = ? AND images.status = 'scraped' ORDER BY n"
    )
    for product_id in _product_ids(state):
        for row in state.rows(query, product_id):
            yield ImageRow(*row)


def metadata_rows(state: ScrapeStateReader) -> Iterator[MetadataRow]:
    """Yield one row per product whose page has been parsed."""
    for product_id in _product_ids(state):
        for url, category, text in state.rows(
            "SELECT url, category, page FROM products WHERE product_id = ?", product_id
        ):
            if page := read_page_record(text):
                facts = page.metadata
                yield MetadataRow(
                    product_url=url,
                    product_id=product_id,
                    category=category,
                    **{name: facts[name].value if name in facts else "" for name in FIELDS},
                    sources=" ".join(f"{name}={fact.source}" for name, fact in facts.items()),
                    source=page.source,
                    licence=page.licence,
                )


def metadata_coverage(state: ScrapeStateReader) -> dict[str, int]:
    """Return the number of products with a value, by metadata field."""
    pages = (read_page_record(text) for (text,) in state.rows("SELECT page FROM products WHERE position IS NOT NULL"))
    known = Counter(name for page in pages if page for name in page.metadata)
    return {name: known[name] for name in FIELDS}


def failure_rows(problems: Iterable[Problem], state: ScrapeStateReader) -> Iterator[FailureRow]:
    """Yield one row per problem of the catalogue, per product that is not scraped and per failed image."""
    rows = (
        FailureRow(problem.url, "", "", problem.reason, f"catalogue row {problem.row}: {problem.detail}", None, 0)
        for problem in problems
    )
    yield from sorted(rows, key=lambda row: natural_key(row.product_url))
    products = (
        "SELECT url, product_id, '', status, reason, detail, http_status, attempts FROM products WHERE product_id = ?"
    )
    images = (
        "SELECT url, product_id, source_url, images.status, images.reason, images.detail, images.http_status, "
        "images.attempts FROM images JOIN products USING (product_id) "
        "WHERE product_id = ? AND images.status = 'failed'"
    )
    for product_id in _product_ids(state):
        yield from (_failure_row(*row) for row in state.rows(products, product_id) if row[3] != "scraped")
        failed = [_failure_row(*row) for row in state.rows(images, product_id)]
        yield from sorted(failed, key=lambda row: natural_key(row.image_url))


def counts(state: ScrapeStateReader) -> dict[str, int]:
    """Return the number of products by result; the counts add up to the catalogue's products."""
    ended = dict(
        state.rows(
            "SELECT CASE WHEN status IN ('scraped', 'failed') THEN status ELSE 'not_tried' END, COUNT(*) "
            "FROM products WHERE position IS NOT NULL GROUP BY 1"
        )
    )
    return {outcome: ended.get(outcome, 0) for outcome in ("scraped", "failed", "not_tried")}


def figures(problems: Iterable[Problem], state: ScrapeStateReader) -> dict[str, Any]:
    """Return failures by reason, coverage by category as [scraped, products], and other counts for the report."""
    of_products = (
        "SELECT CASE status WHEN 'failed' THEN reason ELSE 'not_tried' END, COUNT(*) FROM products "
        "WHERE position IS NOT NULL AND status <> 'scraped' GROUP BY 1 ORDER BY 1"
    )
    of_images = f"SELECT images.reason, COUNT(*) {_IMAGES} 'failed' GROUP BY 1 ORDER BY 1"
    coverage = (
        "SELECT category, SUM(status = 'scraped'), COUNT(*) FROM products WHERE position IS NOT NULL "
        "GROUP BY 1 ORDER BY 1"
    )
    return {
        "n_images": next(state.rows(f"SELECT COUNT(*) {_IMAGES} 'scraped'"))[0],
        "failures_by_reason": dict(state.rows(of_products)),
        "image_failures_by_reason": dict(state.rows(of_images)),
        "coverage_by_category": {category: [n, total] for category, n, total in state.rows(coverage)},
        "catalogue_problems": dict(sorted(Counter(problem.reason for problem in problems).items())),
    }


def _product_ids(state: ScrapeStateReader) -> list[str]:
    """Return the catalogue's product ids in table order."""
    found = state.rows("SELECT product_id FROM products WHERE position IS NOT NULL")
    return sorted((product_id for (product_id,) in found), key=natural_key)


def _failure_row(
    product_url: str, product_id: str, image_url: str, status: str, reason: str, detail: str,
    http_status: int | None, attempts: int,
) -> FailureRow:  # fmt: skip
    if status != "failed":
        return FailureRow(product_url, product_id, image_url, "not_tried", "", None, 0)
    return FailureRow(product_url, product_id, image_url, reason, detail, http_status, attempts)
