"""The one truth about a scrape: a SQLite file with one row per product and one per picture.

    product  pending -> listed (its page is read, its pictures are known) -> scraped | failed
    picture  pending -> scraped | failed

Every change is one transaction, and a picture's file is on disk before its row says so: a process killed at any
moment loses at most the requests that were under way. `csv_data/*.csv` are written from here, for people and stages.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from skincare.errors import StageError

Status = Literal["pending", "listed", "scraped", "failed"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS products (
    product_id TEXT PRIMARY KEY, status TEXT NOT NULL DEFAULT 'pending',
    reason TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', http_status INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0, changed_at TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    product_id TEXT NOT NULL, n INTEGER NOT NULL, source_url TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
    file TEXT NOT NULL DEFAULT '', width INTEGER NOT NULL DEFAULT 0, height INTEGER NOT NULL DEFAULT 0,
    n_bytes INTEGER NOT NULL DEFAULT 0, sha256 TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', http_status INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0, changed_at TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (product_id, n)
) WITHOUT ROWID;
"""
_IMAGE_COLUMNS: Final = (
    "product_id, n, source_url, status, file, width, height, n_bytes, sha256, reason, detail, http_status, attempts"
)


@dataclass(frozen=True)
class Failure:
    """Why a product or a picture was not scraped."""

    reason: str
    detail: str = ""
    http_status: int | None = None
    attempts: int = 1


@dataclass(frozen=True)
class SavedImage:
    """A picture that is on disk; `file` is relative to the root."""

    file: str
    width: int
    height: int
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class ProductRecord:
    """What is known of one product."""

    product_id: str
    status: Status
    failure: Failure


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one picture: `saved` counts when it is scraped, `failure` when it failed."""

    product_id: str
    n: int
    source_url: str
    status: Status
    saved: SavedImage
    failure: Failure


class ScrapeState:
    """The state file, open for one process; its methods may be called from any thread.

    Every method raises StageError where the file cannot be read or written (disk full, read-only folder, in use).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
            # A second scraper on the same folder must not start; the system frees the lock when a process dies.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._connection.close()

    def add_products(self, product_ids: Iterable[str]) -> None:
        """Make products pending that are not known yet."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO products (product_id) VALUES (?)", ((product_id,) for product_id in product_ids)
            )

    def reopen_failed(self) -> list[str]:
        """Make failed products and pictures pending again; return the ids of the products that have work now."""
        with self._transaction() as connection:
            failed_image = "SELECT product_id FROM images WHERE status = 'failed'"
            reopened = connection.execute(
                f"SELECT product_id FROM products WHERE status = 'failed' OR product_id IN ({failed_image})"  # noqa: S608
            ).fetchall()
            connection.execute(
                f"UPDATE products SET status = 'listed' WHERE status = 'scraped' AND product_id IN ({failed_image})"  # noqa: S608
            )
            # The page of a failed product is read anew: its pictures may have other addresses by now.
            connection.execute("UPDATE products SET status = 'pending' WHERE status = 'failed'")
            connection.execute("UPDATE images SET status = 'pending' WHERE status = 'failed'")
        return [product_id for (product_id,) in reopened]

    def reopen_missing(self, root: Path) -> int:
        """Make pictures pending again whose file below `root` is gone or has another size; return how many."""
        saved = [image for image in self.images() if image.status == "scraped"]
        missing = [image for image in saved if _size(root / image.saved.file) != image.saved.n_bytes]
        with self._transaction() as connection:
            for image in missing:
                key = (image.product_id, image.n)
                connection.execute("UPDATE images SET status = 'pending' WHERE product_id = ? AND n = ?", key)
                connection.execute("UPDATE products SET status = 'listed' WHERE product_id = ?", key[:1])
        return len(missing)

    def list_images(self, product_id: str, source_urls: Iterable[str]) -> None:
        """Record the pictures of a product's page, numbered from 1; what was known of them before is forgotten."""
        rows = [(product_id, n, url) for n, url in enumerate(source_urls, start=1)]
        with self._transaction() as connection:
            connection.execute("DELETE FROM images WHERE product_id = ?", (product_id,))
            connection.executemany("INSERT INTO images (product_id, n, source_url) VALUES (?, ?, ?)", rows)
            connection.execute(
                "UPDATE products SET status = 'listed', changed_at = ? WHERE product_id = ?", (_now(), product_id)
            )

    def save_image(self, product_id: str, n: int, saved: SavedImage) -> None:
        """Record a picture whose file is on disk."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE images SET status = 'scraped', file = ?, width = ?, height = ?, n_bytes = ?, sha256 = ?, "
                "changed_at = ? WHERE product_id = ? AND n = ?",
                (saved.file, saved.width, saved.height, saved.n_bytes, saved.sha256, _now(), product_id, n),
            )

    def fail_image(self, product_id: str, n: int, failure: Failure) -> None:
        """Record a picture that could not be had."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE images SET status = 'failed', reason = ?, detail = ?, http_status = ?, attempts = ?, "
                "changed_at = ? WHERE product_id = ? AND n = ?",
                (failure.reason, failure.detail, failure.http_status, failure.attempts, _now(), product_id, n),
            )

    def finish_product(self, product_id: str) -> None:
        """Record that a product has at least one picture and none pending."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE products SET status = 'scraped', changed_at = ? WHERE product_id = ?", (_now(), product_id)
            )

    def fail_product(self, product_id: str, failure: Failure) -> None:
        """Record a product that could not be had."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE products SET status = 'failed', reason = ?, detail = ?, http_status = ?, attempts = ?, "
                "changed_at = ? WHERE product_id = ?",
                (failure.reason, failure.detail, failure.http_status, failure.attempts, _now(), product_id),
            )

    def products(self) -> dict[str, ProductRecord]:
        """Return all products by id."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT product_id, status, reason, detail, http_status, attempts FROM products")
            return {row[0]: ProductRecord(row[0], row[1], Failure(*row[2:])) for row in rows}

    def images(self, product_id: str | None = None) -> list[ImageRecord]:
        """Return the pictures of one product, or of all, in order."""
        where = "" if product_id is None else "WHERE product_id = ?"
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {_IMAGE_COLUMNS} FROM images {where} ORDER BY product_id, n",  # noqa: S608
                () if product_id is None else (product_id,),
            )
            return [
                ImageRecord(product_id, n, source_url, status, SavedImage(*rest[:5]), Failure(*rest[5:]))
                for product_id, n, source_url, status, *rest in rows
            ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    # A full disk has already rolled it back.
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> StageError:
        if "locked" in str(error):
            return StageError(f"{self._path} is in use: another scrape.py is running on this folder")
        return StageError(f"{self._path}: {error}\nNothing is lost: mend that and run the same command again to go on.")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
