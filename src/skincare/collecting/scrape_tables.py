"""The scrape's tables and figures: the state and the catalogue's bad rows in, rows and counts out.

Only the catalogue's products count, whatever else the state remembers, and no row tells when it was made: the same
shop gives the same bytes. Rows come sorted and one at a time: a million of them take no memory.
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
    """Yield one row per image that is on disk."""
    query = (
        "SELECT url, product_id || '_' || n, product_id, file, source_url, width, height, n_bytes, sha256, "
        "licence, attribution "
        "FROM images JOIN products USING (product_id) WHERE product_id = ? AND images.status = 'scraped' ORDER BY n"
    )
    for product_id in _product_ids(state):
        for row in state.rows(query, product_id):
            yield ImageRow(*row)


def metadata_rows(state: ScrapeStateReader) -> Iterator[MetadataRow]:
    """Yield one row per product whose page is read."""
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
    """Return for how many of the catalogue's products each field is known."""
    pages = (read_page_record(text) for (text,) in state.rows("SELECT page FROM products WHERE position IS NOT NULL"))
    known = Counter(name for page in pages if page for name in page.metadata)
    return {name: known[name] for name in FIELDS}


def failure_rows(problems: Iterable[Problem], state: ScrapeStateReader) -> Iterator[FailureRow]:
    """Yield one row per bad row of the catalogue, per product that is not scraped and per failed image."""
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
    """Return how the catalogue's products ended; the counts add up to their number."""
    ended = dict(
        state.rows(
            "SELECT CASE WHEN status IN ('scraped', 'failed') THEN status ELSE 'not_tried' END, COUNT(*) "
            "FROM products WHERE position IS NOT NULL GROUP BY 1"
        )
    )
    return {outcome: ended.get(outcome, 0) for outcome in ("scraped", "failed", "not_tried")}


def figures(problems: Iterable[Problem], state: ScrapeStateReader) -> dict[str, Any]:
    """Return what the report shows beside the counts: reasons, and coverage by category as [scraped, products]."""
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
    """Return the catalogue's product ids in the order of the tables."""
    found = state.rows("SELECT product_id FROM products WHERE position IS NOT NULL")
    return sorted((product_id for (product_id,) in found), key=natural_key)


def _failure_row(
    product_url: str, product_id: str, image_url: str, status: str, reason: str, detail: str,
    http_status: int | None, attempts: int,
) -> FailureRow:  # fmt: skip
    if status != "failed":
        return FailureRow(product_url, product_id, image_url, "not_tried", "", None, 0)
    return FailureRow(product_url, product_id, image_url, reason, detail, http_status, attempts)
