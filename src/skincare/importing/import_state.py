"""What an import knows, in one SQLite file: the entries of the source, their products, and what was written for each.

    entries    the source as it is now; made again by every run in one transaction
    products   the products of the entries; made again with them
    numbers    (product, place) -> n, kept for ever: an image keeps its id when others come or go
    results    what was written for an entry, or why not; a run that was killed goes on from these

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
    """The state of the import into one root; raises StageError where it cannot be used."""

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
        """Make everything so far last."""
        self._database.execute("commit")
        self._database.execute("begin immediate")

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, few at a time; the tables that it reads must not change before the last."""
        try:
            cursor = self._database.execute(query, values)
            while fetched := cursor.fetchmany(_READ_ROWS):
                yield from fetched
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def by_position(self, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield the position and these columns of every entry to import; rows may be changed meanwhile."""
        last = -1
        query = (
            f"select position, {columns} from entries where reason = '' and position > ? "  # noqa: S608  our own names
            f"order by position limit {_READ_ROWS}"
        )
        while fetched := list(self.rows(query, last)):
            yield from fetched
            last = fetched[-1][0]

    def one(self, query: str, *values: object) -> Any:
        """Return the first column of the first row; None without one."""
        return next((row[0] for row in self.rows(query, *values)), None)

    def change(self, statement: str, *values: object) -> None:
        """Run one statement that changes something."""
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def change_all(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Run a statement for each of many rows."""
        try:
            self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def replace_entries(self, items: Iterable[tuple[Entry | Refusal, str]]) -> None:
        """Store the source as it is now, each entry with its label; nothing of it stays where this fails."""
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
        """Store what became of an entry; committed with the next hundreds."""
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
