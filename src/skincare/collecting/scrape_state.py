"""The state of a scrape: a SQLite database with one row per product and one per image.

    product  pending -> listed (page parsed, image URLs known) -> scraped | failed
    image  pending -> scraped | failed

Every change is one transaction, and an image's file is written before its row: a process killed at any time loses at
most the requests in flight. The tables in csv_data/ are written from this database. Any number of processes may read
it while one writes; a second writer is refused.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from skincare import runlog, urls
from skincare.catalogue import Product
from skincare.collecting.fetch_record import FetchRecord
from skincare.errors import StageError

Status = Literal["pending", "listed", "scraped", "failed"]
# The result of a refresh, see skincare.collecting.scrape_refresh.
Change = Literal["unchanged", "changed", "gone", "failed"]

_PROGRESS: Final = {
    "status": "TEXT NOT NULL DEFAULT 'pending'", "reason": "TEXT NOT NULL DEFAULT ''",
    "detail": "TEXT NOT NULL DEFAULT ''", "http_status": "INTEGER", "attempts": "INTEGER NOT NULL DEFAULT 0",
    "seconds": "REAL NOT NULL DEFAULT 0", "changed_at": "TEXT NOT NULL DEFAULT ''",
    "etag": "TEXT NOT NULL DEFAULT ''", "last_modified": "TEXT NOT NULL DEFAULT ''",
    "is_stale": "INTEGER NOT NULL DEFAULT 0", "change": "TEXT NOT NULL DEFAULT ''",
}  # fmt: skip
# `position` is the product's index in the catalogue; NULL for a product that is no longer in it.
_COLUMNS: Final = {
    "products": {
        "product_id": "TEXT NOT NULL", "position": "INTEGER", "host": "TEXT NOT NULL DEFAULT ''",
        "url": "TEXT NOT NULL DEFAULT ''", "slug": "TEXT NOT NULL DEFAULT ''", "name": "TEXT NOT NULL DEFAULT ''",
        "category": "TEXT NOT NULL DEFAULT ''", "variation": "TEXT NOT NULL DEFAULT ''",
        "source": "TEXT NOT NULL DEFAULT ''", "page": "TEXT NOT NULL DEFAULT ''", **_PROGRESS,
    },
    "images": {
        "product_id": "TEXT NOT NULL", "n": "INTEGER NOT NULL", "source_url": "TEXT NOT NULL",
        "file": "TEXT NOT NULL DEFAULT ''", "width": "INTEGER NOT NULL DEFAULT 0",
        "height": "INTEGER NOT NULL DEFAULT 0", "n_bytes": "INTEGER NOT NULL DEFAULT 0",
        "sha256": "TEXT NOT NULL DEFAULT ''", "licence": "TEXT NOT NULL DEFAULT ''",
        "attribution": "TEXT NOT NULL DEFAULT ''", **_PROGRESS,
    },
}  # fmt: skip
_KEYS: Final = {"products": "product_id", "images": "product_id, n"}
_FETCH_COLUMNS: Final = "http_status = ?, attempts = ?, seconds = ?, etag = ?, last_modified = ?, changed_at = ?"
_READ_ROWS: Final = 500


@dataclass(frozen=True)
class Failure:
    """The reason why a product or an image was not scraped."""

    reason: str
    detail: str = ""
    # None if nothing was fetched.
    fetch_record: FetchRecord | None = None


@dataclass(frozen=True)
class ListedImage:
    """An image listed on a product's page, with its licence and the attribution that this requires."""

    url: str
    licence: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class SavedImage:
    """An image on disk; `file` is relative to the root."""

    file: str
    width: int
    height: int
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class ImageRecord:
    """One image: `saved` is valid if its status is scraped, `fetch_record` is the last fetch."""

    n: int
    source_url: str
    status: Status
    is_stale: bool
    saved: SavedImage
    fetch_record: FetchRecord


class ScrapeStateReader:
    """Read access to the state; raises StageError if it cannot be read."""

    def __init__(self, path: Path, *, is_writer: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        mode = "rwc" if is_writer else "ro"
        try:
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._connection.close()

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield a query's rows in batches; the state must not be written before the last row."""
        try:
            with self._lock:
                cursor = self._connection.execute(query, values)
            while True:
                with self._lock:
                    batch = cursor.fetchmany(_READ_ROWS)
                yield from batch
                if len(batch) < _READ_ROWS:
                    return
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def images(self, product_id: str) -> list[ImageRecord]:
        """Return the images of one product in order."""
        rows = self.rows(
            "SELECT n, source_url, status, is_stale, file, width, height, n_bytes, sha256, "
            "http_status, attempts, seconds, etag, last_modified FROM images WHERE product_id = ? ORDER BY n",
            product_id,
        )
        return [
            ImageRecord(n, source_url, status, bool(is_stale), SavedImage(*rest[:5]), FetchRecord(*rest[5:]))
            for n, source_url, status, is_stale, *rest in rows
        ]

    def _unusable(self, error: sqlite3.Error) -> StageError:
        return StageError(f"{self._path}: {error}\nNothing is lost: fix this and continue with `{runlog.command()}`.")


class ScrapeState(ScrapeStateReader):
    """Read and write access to the state for one process; methods are thread-safe.

    Every method raises StageError if the file cannot be read or written (disk full, read-only folder, in use).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer_lock = self._acquire_writer_lock(path)
        super().__init__(path, is_writer=True)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            for table, columns in _COLUMNS.items():
                self._make(table, columns)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._connection.close()
        self._writer_lock.close()

    def _acquire_writer_lock(self, path: Path) -> sqlite3.Connection:
        """Return an exclusive lock on the folder; the operating system releases it when the process ends.

        The lock is a separate database, since a lock on the state would block readers.
        """
        try:
            writer_lock = sqlite3.connect(
                path.with_suffix(".lock"), timeout=1, isolation_level=None, check_same_thread=False
            )
            writer_lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise StageError(f"{path} is in use: another scrape.py is running on this folder") from error
            raise self._unusable(error) from error
        return writer_lock

    def _make(self, table: str, columns: dict[str, str]) -> None:
        """Create the table, or add the columns that an earlier version lacks."""
        declared = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} ({declared}, PRIMARY KEY ({_KEYS[table]})) WITHOUT ROWID"
        )
        present = {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}
        for name in columns.keys() - present:
            self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}")

    def set_catalogue(self, products: Iterable[Product]) -> None:
        """Set the catalogue to these products, in this order; new products are pending."""
        fields = ("url", "slug", "name", "category", "variation", "source", "host", "position")
        columns = attrgetter("product_id", *fields[:-2])
        placeholders = ", ".join("?" for _ in fields)
        update = ", ".join(f"{field} = excluded.{field}" for field in fields)
        with self.transaction() as connection:
            connection.execute("UPDATE products SET position = NULL")
            connection.executemany(
                f"INSERT INTO products (product_id, {', '.join(fields)}) VALUES (?, {placeholders}) "
                f"ON CONFLICT (product_id) DO UPDATE SET {update}",
                ((*columns(one), urls.origin(one.url), i) for i, one in enumerate(products)),
            )

    def list_images(self, product_id: str, images: Iterable[ListedImage], page: str, fetch_record: FetchRecord) -> None:
        """Record the image URLs, numbered from 1, and the metadata of a product's page.

        Earlier rows of its images are deleted.
        """
        rows = [(product_id, n, one.url, one.licence, one.attribution) for n, one in enumerate(images, start=1)]
        columns = "product_id, n, source_url, licence, attribution"
        with self.transaction() as connection:
            connection.execute("DELETE FROM images WHERE product_id = ?", (product_id,))
            connection.executemany(f"INSERT INTO images ({columns}) VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute(
                f"UPDATE products SET status = 'listed', page = ?, {_FETCH_COLUMNS} WHERE product_id = ?",
                (page, *_fetch_values(fetch_record), product_id),
            )

    def save_image(self, product_id: str, n: int, saved: SavedImage, fetch_record: FetchRecord) -> None:
        """Mark an image as scraped; its file must be on disk."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE images SET status = 'scraped', reason = '', detail = '', is_stale = 0, file = ?, width = ?, "
                f"height = ?, n_bytes = ?, sha256 = ?, {_FETCH_COLUMNS} WHERE product_id = ? AND n = ?",
                (*astuple(saved), *_fetch_values(fetch_record), product_id, n),
            )

    def fail_image(self, product_id: str, n: int, failure: Failure) -> None:
        """Mark an image as failed."""
        with self.transaction() as connection:
            connection.execute(
                f"UPDATE images SET status = 'failed', reason = ?, detail = ?, {_FETCH_COLUMNS} "
                "WHERE product_id = ? AND n = ?",
                (failure.reason, failure.detail, *_fetch_values(failure.fetch_record or FetchRecord()), product_id, n),
            )

    def finish_product(self, product_id: str) -> None:
        """Mark a product as scraped: at least one image on disk, none pending."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE products SET status = 'scraped', reason = '', detail = '', changed_at = ? WHERE product_id = ?",
                (_now(), product_id),
            )

    def fail_product(self, product_id: str, failure: Failure) -> None:
        """Mark a product as failed; a failure without a fetch keeps the fetch record of the page."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE products SET status = 'failed', reason = ?, detail = ?, changed_at = ? WHERE product_id = ?",
                (failure.reason, failure.detail, _now(), product_id),
            )
            if failure.fetch_record:
                connection.execute(
                    f"UPDATE products SET {_FETCH_COLUMNS} WHERE product_id = ?",
                    (*_fetch_values(failure.fetch_record), product_id),
                )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block's statements as one transaction."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    # SQLite has already rolled back after an error such as a full disk.
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unusable(error) from error


def _fetch_values(fetch_record: FetchRecord) -> Sequence[object]:
    return (
        fetch_record.http_status,
        fetch_record.attempts,
        round(fetch_record.seconds, 3),
        fetch_record.etag,
        fetch_record.last_modified,
        _now(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
