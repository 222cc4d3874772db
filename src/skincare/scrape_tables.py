"""The scrape's tables and figures: catalogue and state in, rows and counts out.

Only the catalogue's products count, whatever else the state remembers, and no row tells when it was made: the same
shop gives the same bytes.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from skincare.catalogue import Catalogue
from skincare.scrape_state import Failure, ImageRecord, ProductRecord
from skincare.tables import FailureRow, ImageRow


def image_rows(catalogue: Catalogue, images: Iterable[ImageRecord]) -> list[ImageRow]:
    """Return one row per picture that is on disk."""
    url_of = {product.product_id: product.url for product in catalogue.products}
    return [
        ImageRow(
            product_url=url_of[image.product_id],
            image_id=f"{image.product_id}_{image.n}",
            product_id=image.product_id,
            file=image.saved.file,
            source_url=image.source_url,
            width=image.saved.width,
            height=image.saved.height,
            n_bytes=image.saved.n_bytes,
            sha256=image.saved.sha256,
        )
        for image in images
        if image.status == "scraped" and image.product_id in url_of
    ]


def failure_rows(
    catalogue: Catalogue, records: dict[str, ProductRecord], images: Iterable[ImageRecord]
) -> list[FailureRow]:
    """Return one row per bad row of the catalogue, per product that is not scraped and per failed picture."""
    url_of = {product.product_id: product.url for product in catalogue.products}
    rows = [
        FailureRow(problem.url, "", "", problem.reason, f"catalogue row {problem.row}: {problem.detail}", None, 0)
        for problem in catalogue.rejected
    ]
    rows += [
        _failure_row(url_of[product_id], product_id, "", _why_not(records[product_id]))
        for product_id in url_of
        if records[product_id].status != "scraped"
    ]
    rows += [
        _failure_row(url_of[image.product_id], image.product_id, image.source_url, image.failure)
        for image in images
        if image.status == "failed" and image.product_id in url_of
    ]
    return rows


def counts(catalogue: Catalogue, records: dict[str, ProductRecord]) -> dict[str, int]:
    """Return how the catalogue's products ended; the counts add up to their number."""
    ended = Counter(_outcome(records[product.product_id]) for product in catalogue.products)
    return {outcome: ended[outcome] for outcome in ("scraped", "failed", "not_tried")}


def figures(catalogue: Catalogue, records: dict[str, ProductRecord], failures: list[FailureRow]) -> dict[str, Any]:
    """Return what the report shows beside the counts: reasons, and coverage by category as [scraped, products]."""
    coverage: dict[str, list[int]] = {}
    for product in sorted(catalogue.products, key=lambda product: product.category):
        cell = coverage.setdefault(product.category, [0, 0])
        cell[0] += records[product.product_id].status == "scraped"
        cell[1] += 1
    return {
        "failures_by_reason": _by_reason(row for row in failures if row.product_id and not row.image_url),
        "image_failures_by_reason": _by_reason(row for row in failures if row.image_url),
        "coverage_by_category": coverage,
        "catalogue_rows": catalogue.n_rows,
        "catalogue_problems": dict(sorted(Counter(problem.reason for problem in catalogue.problems).items())),
    }


def _outcome(record: ProductRecord) -> str:
    return record.status if record.status in ("scraped", "failed") else "not_tried"


def _why_not(record: ProductRecord) -> Failure:
    return record.failure if record.status == "failed" else Failure("not_tried", attempts=0)


def _failure_row(product_url: str, product_id: str, image_url: str, failure: Failure) -> FailureRow:
    return FailureRow(
        product_url, product_id, image_url, failure.reason, failure.detail, failure.http_status, failure.attempts
    )


def _by_reason(rows: Iterable[FailureRow]) -> dict[str, int]:
    return dict(sorted(Counter(row.reason for row in rows).items()))
