"""The tables of an import, as scrape.py writes them: the state in, rows out, one at a time."""

from collections.abc import Iterator
from typing import Any

from skincare.importing.import_state import ImportState
from skincare.paths import Layout
from skincare.table_cells import for_spreadsheet
from skincare.tables import CatalogueRow, FailureRow, ImageRow


def catalogue_rows(state: ImportState) -> Iterator[CatalogueRow]:
    """Yield one row per product, sorted by URL."""
    # Catalogues are read unchanged, so an apostrophe that escapes a formula would not be removed.
    # All URLs have the same prefix before the product id, so both sort orders are equal.
    query = "select url, product_id, name, label from products order by product_id"
    for url, product_id, name, label in state.rows(query):
        yield CatalogueRow(for_spreadsheet(name), url, label, product_id=product_id)


def image_rows(state: ImportState, layout: Layout) -> Iterator[ImageRow]:
    """Yield one row per image that is on disk, sorted by image id."""
    query = (
        "select url, product_id || '_' || n, product_id, ? || '/' || results.file, "
        "case origin when '' then place else origin end, width, height, n_bytes, sha256, licence, attribution "
        "from entries join products using (product_id) join results using (place) "
        "where entries.reason = '' and results.reason = '' order by product_id, n"
    )
    yield from (ImageRow(*row) for row in state.rows(query, layout.product_images.name))


def failure_rows(state: ImportState) -> Iterator[FailureRow]:
    """Yield one row per file or row of the source that is not imported."""
    query = "select place, reason, detail, line from entries where reason <> ''"
    for place, reason, detail, line in state.rows(query):
        yield FailureRow("", "", place, reason, f"line {line}: {detail}" if line else detail, None, 0)
    query = (
        "select url, product_id, place, results.reason, results.detail from entries "
        "join products using (product_id) join results using (place) where entries.reason = '' and results.reason <> ''"
    )
    for url, product_id, place, reason, detail in state.rows(query):
        yield FailureRow(url, product_id, place, reason, detail, None, 1)


def counts(state: ImportState) -> dict[str, int]:
    """Return the number of files and rows imported, and of those rejected by reason; they add up to the total."""
    refused = state.rows(
        "select reason, count(*) from (select reason from entries where reason <> '' union all "
        "select results.reason from entries join results using (place) "
        "where entries.reason = '' and results.reason <> '') group by reason order by reason"
    )
    imported = state.one(
        "select count(*) from entries join results using (place) where entries.reason = '' and results.reason = ''"
    )
    return {"imported": imported, **dict(refused)}


def figures(state: ImportState) -> dict[str, Any]:
    """Return images and products by category, and the unknown category texts of folders and tables."""
    by_category = state.rows(
        "select entries.label, count(*), count(distinct product_id) from entries join results using (place) "
        "where entries.reason = '' and results.reason = '' group by entries.label order by entries.label"
    )
    unknown = state.rows(
        "select detail, count(*) from entries where reason = 'unknown_category' group by detail "
        "order by count(*) desc, detail limit 20"
    )
    return {
        "images_and_products": {label: [images, products] for label, images, products in by_category},
        "unknown_categories": dict(unknown),
    }
