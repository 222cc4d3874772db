"""State of an import in one SQLite file: the entries of the source, their products, and the result of each.

    entries    the current source; replaced by every run in one transaction
    products   the products of the entries; replaced with them
    numbers    (product, place) -> n, permanent: an image keeps its id if others are added or removed
    results    the output of an entry or its reason; a killed run resumes from these

A file is on disk before its result is stored. A second process that imports into the same root is refused.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from skincare.errors import StageError
from skincare.importing.entries import Entry, Refusal
from skincare.importing.numbered_names import numbered_name

_COMMIT_EVERY: Final = 200
_READ_ROWS: Final = 500
_SCHEMA: Final = """
create table if not exists about (key text primary key, value text);
create table if not exists entries (
    position integer primary key, place text, path blob, row integer, col text, label text, folder text, product text,
    name text, licence text, attribution text, origin text, line integer, reason text, detail text,
    base text, number integer, stem text, key text default '', product_id text default '', n integer default 0,
    file text default ''
);
create index if not exists entries_place on entries (place);
create index if not exists entries_key on entries (key, position);
create index if not exists entries_product on entries (product_id, n);
create index if not exists entries_base on entries (base, number);
create index if not exists entries_stem on entries (stem);
create table if not exists products (product_id text primary key, label text, name text, slug text, url text);
create table if not exists numbers (product_id text, place text, n integer, primary key (product_id, place));
create table if not exists groups (place text primary key, key text);
create table if not exists results (
    place text primary key, stamp text, file text, width integer, height integer, n_bytes integer, sha256 text,
    reason text, detail text
);
"""


class ImportState:
    """The state of the import into one root; raises StageError if it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._n_pending = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, timeout=1, isolation_level=None)
            self._database.execute("pragma locking_mode = exclusive")
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = normal")
            self._database.executescript(_SCHEMA)
            self._database.execute("begin immediate")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._database.in_transaction:
            self._database.execute("commit")
        self._database.close()

    def commit(self) -> None:
        """Commit all changes."""
        self._database.execute("commit")
        self._database.execute("begin immediate")

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query in batches; its tables must not change before the last row."""
        try:
            cursor = self._database.execute(query, values)
            while fetched := cursor.fetchmany(_READ_ROWS):
                yield from fetched
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def by_position(self, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield the position and these columns of every entry to import; rows may be changed in the meantime."""
        last = -1
        query = (
            f"select position, {columns} from entries where reason = '' and position > ? "  # noqa: S608  our own names
            f"order by position limit {_READ_ROWS}"
        )
        while fetched := list(self.rows(query, last)):
            yield from fetched
            last = fetched[-1][0]

    def one(self, query: str, *values: object) -> Any:
        """Return the first column of the first row; None if there are no rows."""
        return next((row[0] for row in self.rows(query, *values)), None)

    def change(self, statement: str, *values: object) -> None:
        """Execute one statement that changes data."""
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def change_all(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Execute a statement for each row."""
        try:
            self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def replace_entries(self, items: Iterable[tuple[Entry | Refusal, str]]) -> None:
        """Replace the entries by those of the current source, each with its label; an error rolls back."""
        self.change("delete from entries")
        self.change_all(
            "insert into entries (position, place, path, row, col, label, folder, product, name, licence, attribution, "
            "origin, line, reason, detail, base, number, stem) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (_row(position, item, label) for position, (item, label) in enumerate(items)),
        )

    def keep_result(
        self, place: str, stamp: str, *, file: str = "", width: int = 0, height: int = 0, n_bytes: int = 0,
        sha256: str = "", reason: str = "", detail: str = "",
    ) -> None:  # fmt: skip
        """Store the result of an entry; results are committed in batches of hundreds."""
        self.change(
            "insert or replace into results values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            place, stamp, file, width, height, n_bytes, sha256, reason, detail,
        )  # fmt: skip
        self._n_pending += 1
        if self._n_pending % _COMMIT_EVERY == 0:
            self.commit()

    def _unusable(self, error: sqlite3.Error) -> StageError:
        if "locked" in str(error):
            return StageError(f"{self._path}: another import into this root is running")
        return StageError(f"{self._path}: {error}\nRemove the file to import from the beginning.")


def _row(position: int, item: Entry | Refusal, label: str) -> tuple[object, ...]:
    if isinstance(item, Refusal):
        return position, item.place, b"", -1, "", "", "", "", "", "", "", "", 0, item.reason, item.detail, "", -1, ""
    return (
        position, item.place, os.fsencode(item.path), item.row, item.column, label, item.folder, item.product,
        item.name, item.licence, item.attribution, item.origin, item.line, "", "", *numbered_name(label, item.place),
    )  # fmt: skip
