"""The work items of a run: selected once from the state, then iterated host by host.

The selection is a temporary table of the state's database, so memory does not grow with the catalogue.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from skincare.catalogue import Product
from skincare.collecting.scrape_state import ScrapeState

# Unfinished products; those and the stale ones; or those that failed, including a retry that was interrupted.
Kind = Literal["open", "stale", "failed"]

_CONDITIONS: Final[dict[Kind, str]] = {
    "open": "status IN ('pending', 'listed')",
    "stale": "status IN ('pending', 'listed') OR is_stale",
    "failed": "(status <> 'scraped' AND reason <> '') OR product_id IN "
    "(SELECT product_id FROM images WHERE status <> 'scraped' AND reason <> '')",
}
# The page of a failed product is fetched again, since the image URLs may have changed.
_REOPENED: Final = (
    "UPDATE products SET status = CASE WHEN status IN ('failed', 'pending') THEN 'pending' ELSE 'listed' END "
    "WHERE product_id IN (SELECT product_id FROM work)",
    "UPDATE images SET status = 'pending' WHERE status = 'failed' AND product_id IN (SELECT product_id FROM work)",
)
_READ_ROWS: Final = 200


@dataclass(frozen=True)
class WorkItem:
    """One product to process: `is_listed` if its page has been read, `is_stale` if it is to be refreshed."""

    product: Product
    is_listed: bool
    is_open: bool = True
    is_stale: bool = False


def reopen_missing(state: ScrapeState, root: Path) -> int:
    """Mark images as pending whose file below `root` is missing or has another size; return their number."""
    saved = state.rows("SELECT product_id, n, file, n_bytes FROM images WHERE status = 'scraped'")
    missing = [(product_id, n) for product_id, n, file, n_bytes in saved if _size(root / file) != n_bytes]
    with state.transaction() as connection:
        connection.executemany("UPDATE images SET status = 'pending' WHERE product_id = ? AND n = ?", missing)
        connection.executemany(
            "UPDATE products SET status = 'listed' WHERE product_id = ?", [(product_id,) for product_id, _ in missing]
        )
    return len(missing)


def plan(state: ScrapeState, kind: Kind, limit: int | None) -> dict[str, int]:
    """Select the products to process and reset failed ones; return the number of products by host."""
    with state.transaction() as connection:
        connection.execute("DROP TABLE IF EXISTS temp.work")
        connection.execute("CREATE TEMP TABLE work (number INTEGER PRIMARY KEY, host TEXT, product_id TEXT UNIQUE)")
        connection.execute(
            "INSERT INTO work (host, product_id) SELECT host, product_id FROM products "
            f"WHERE position IS NOT NULL AND ({_CONDITIONS[kind]}) ORDER BY position LIMIT ?",
            (-1 if limit is None else limit,),
        )
        connection.execute("CREATE INDEX temp.work_by_host ON work (host, number)")
        if kind == "failed":
            for statement in _REOPENED:
                connection.execute(statement)
    return dict(state.rows("SELECT host, COUNT(*) FROM work GROUP BY host ORDER BY host"))


def work_items(state: ScrapeState, host: str) -> Iterator[WorkItem]:
    """Yield the selected products of one host in catalogue order."""
    last = 0
    while True:
        batch = list(
            state.rows(
                "SELECT number, product_id, url, slug, name, category, variation, source, status, is_stale FROM work "
                "JOIN products USING (product_id) WHERE work.host = ? AND number > ? ORDER BY number LIMIT ?",
                host, last, _READ_ROWS,
            )
        )  # fmt: skip
        for _, *fields, status, is_stale in batch:
            is_open = status in ("pending", "listed")
            yield WorkItem(Product(*fields), is_listed=status == "listed", is_open=is_open, is_stale=bool(is_stale))
        if len(batch) < _READ_ROWS:
            return
        last = batch[-1][0]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
