"""What is to be done in a run of the scrape: decided once from the state, then handed out host by host.

The list lies in the state file's own temporary tables, so that a catalogue of any length takes no memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from skincare.catalogue import Product
from skincare.collecting.scrape_state import ScrapeState

# Everything that is open, that and what is to be asked for again, or just what was tried and failed. A retry that was
# cut off is still a retry.
Kind = Literal["open", "stale", "failed"]

_CONDITIONS: Final[dict[Kind, str]] = {
    "open": "status IN ('pending', 'listed')",
    "stale": "status IN ('pending', 'listed') OR is_stale",
    "failed": "(status <> 'scraped' AND reason <> '') OR product_id IN "
    "(SELECT product_id FROM images WHERE status <> 'scraped' AND reason <> '')",
}
# The page of a failed product is read anew: its images may have other addresses by now.
_REOPENED: Final = (
    "UPDATE products SET status = CASE WHEN status IN ('failed', 'pending') THEN 'pending' ELSE 'listed' END "
    "WHERE product_id IN (SELECT product_id FROM work)",
    "UPDATE images SET status = 'pending' WHERE status = 'failed' AND product_id IN (SELECT product_id FROM work)",
)
_READ_ROWS: Final = 200


@dataclass(frozen=True)
class WorkItem:
    """One product with work; `is_listed` where its page is already read, `is_stale` where to ask for all again."""

    product: Product
    is_listed: bool
    is_open: bool = True
    is_stale: bool = False


def reopen_missing(state: ScrapeState, root: Path) -> int:
    """Make images pending again whose file below `root` is gone or has another size; return how many."""
    saved = state.rows("SELECT product_id, n, file, n_bytes FROM images WHERE status = 'scraped'")
    missing = [(product_id, n) for product_id, n, file, n_bytes in saved if _size(root / file) != n_bytes]
    with state.transaction() as connection:
        connection.executemany("UPDATE images SET status = 'pending' WHERE product_id = ? AND n = ?", missing)
        connection.executemany(
            "UPDATE products SET status = 'listed' WHERE product_id = ?", [(product_id,) for product_id, _ in missing]
        )
    return len(missing)


def plan(state: ScrapeState, kind: Kind, limit: int | None) -> dict[str, int]:
    """Decide what to work on and make it ready; return the number of products by host."""
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
    """Yield the planned products of one host in the catalogue's order."""
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
