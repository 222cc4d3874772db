"""Image source that is a table: CSV, TSV, JSON Lines, or Hugging Face's `metadata.csv` and `metadata.jsonl`.

Paths are relative to the table, or to the source; none may lead out of the source. Files of a source folder that no
row lists are rejected as `not_in_table`.
"""

import codecs
import csv
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final

from skincare.errors import StageError
from skincare.importing.category_names import CategoryNames
from skincare.importing.columns import Role, choose_columns
from skincare.importing.entries import Entry, Refusal, entry_of
from skincare.importing.folder_source import category_of, place_of, printable, walk

logger = logging.getLogger(__name__)

SUFFIXES: Final = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
_JSON_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})
_SAMPLED_ROWS: Final = 200
_CHUNK: Final = 1 << 20
# Maximum length of a cell or a line of JSON; more is an error in the table.
_MAX_CELL: Final = 1_000_000
_MAX_PATH: Final = 4096
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

Row = tuple[int, dict[str, str] | str]
"""The line of the table, and its cells by column or what is wrong with it."""


@dataclass(frozen=True)
class Table:
    """One table file, read row by row as often as needed."""

    path: Path

    @cached_property
    def _encoding(self) -> str:
        """Return the encoding: by the byte-order mark, else UTF-8 if the whole file is valid, else Windows-1252."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        with self.path.open("rb") as file:
            start = file.read(4)
            if found := next((name for mark, name in _BOMS if start.startswith(mark)), ""):
                return found
            file.seek(0)
            try:
                while chunk := file.read(_CHUNK):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                logger.warning("%s is no UTF-8; it is read as Windows-1252", self.path)
                return "cp1252"
        return "utf-8"

    def rows(self) -> Iterator[Row]:
        """Yield the rows; raises StageError for a file that cannot be read at all."""
        csv.field_size_limit(_MAX_CELL)
        try:
            with self.path.open(encoding=self._encoding, errors="replace", newline="") as file:
                is_json = self.path.suffix.lower() in _JSON_SUFFIXES
                yield from _json_rows(file) if is_json else self._csv_rows(file)
        except (csv.Error, UnicodeError) as error:
            raise StageError(f"{self.path}: not a readable table ({error})") from error

    def header(self) -> list[str]:
        """Return the columns: the first line of a CSV file, the keys of the first rows of JSON Lines."""
        keys: dict[str, None] = {}
        for _, cells in islice(self.rows(), _SAMPLED_ROWS):
            if isinstance(cells, dict):
                keys |= dict.fromkeys(cells)
        return list(keys)

    def sample(self) -> list[dict[str, str]]:
        """Return the first readable rows."""
        return [cells for _, cells in islice(self.rows(), _SAMPLED_ROWS) if isinstance(cells, dict)]

    def _csv_rows(self, lines: Iterator[str]) -> Iterator[Row]:
        first = next(lines, "")
        reader = csv.reader([first], delimiter=(delimiter := self._delimiter(first)))
        header = [name.strip() for name in next(reader, [])]
        if repeated := {name for name in header if name and header.count(name) > 1}:
            raise StageError(f"{self.path}: the column {sorted(repeated)[0]!r} appears twice")
        body = csv.reader(lines, delimiter=delimiter)
        for cells in body:
            if len(cells) == len(header):
                yield body.line_num + 1, dict(zip(header, cells, strict=True))
            elif cells:
                yield body.line_num + 1, f"{len(cells)} cells instead of {len(header)}"

    def _delimiter(self, header: str) -> str:
        if self.path.suffix.lower() == ".tsv":
            return "\t"
        return max(",;\t|", key=header.count)


def _json_rows(lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line) if len(line) <= _MAX_CELL else None
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            yield number, {key: _text(cell) for key, cell in value.items()}
        else:
            yield number, "no JSON object"


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


@dataclass(frozen=True)
class TableSource:
    """The images of one or more tables of the same columns.

    root: the folder that no path may leave, resolved. lists_all: whether files that no table lists are rejected.
    """

    root: Path
    tables: Sequence[Table]
    names: CategoryNames
    given: Mapping[Role, str] = field(default_factory=dict)
    lists_all: bool = True

    @cached_property
    def columns(self) -> dict[str, str]:
        """Return the column of each role."""
        table = self.tables[0]
        try:
            return choose_columns(table.header(), table.sample(), self.given, lambda text: bool(self.names.find(text)))
        except StageError as error:
            raise StageError(f"{table.path}: {error}") from error

    @property
    def description(self) -> str:
        """Return the tables and the columns that are used."""
        used = ", ".join(f"{role} = {column}" for role, column in self.columns.items())
        category = "" if "category" in self.columns else ", category = the image's folder"
        return f"{', '.join(table.path.name for table in self.tables[:5])} with the columns {used}{category}"

    def items(self) -> Iterator[Entry | Refusal]:
        """Yield every row, then the files that no row lists."""
        listed: set[int] = set()  # hashes take less memory than the paths of a million files
        for table in self.tables:
            for line, cells in table.rows():
                found = self._item(table, line, cells)
                if isinstance(found, Entry):
                    listed.add(hash(found.path))
                yield found
        if self.lists_all:
            for path in walk(self.root, skip=[table.path for table in self.tables]):
                if isinstance(path, Refusal):
                    yield path
                elif hash(path.resolve()) not in listed:
                    yield Refusal(place_of(path, self.root), "not_in_table")

    def _item(self, table: Table, line: int, cells: dict[str, str] | str) -> Entry | Refusal:
        where = f"{table.path.name}, line {line}"
        if isinstance(cells, str):
            return Refusal(where, "bad_row", cells)
        texts = {role: _plain(cells.get(column, "")) for role, column in self.columns.items()}
        found = self._file(table, cells.get(self.columns["image"], "").strip(), where)
        if isinstance(found, Refusal):
            return found
        place = place_of(found, self.root)
        category, folder = texts.get("category", ""), ""
        if "category" not in self.columns:
            category, folder = category_of(tuple(place.split("/")[:-1]), self.names)
        return entry_of(texts, place, found, category, folder=folder, line=line)

    def _file(self, table: Table, text: str, where: str) -> Path | Refusal:
        """Return the resolved file of a cell, or the reason why there is none."""
        shown = printable(text[:200])
        if not text:
            return Refusal(where, "bad_row", "no image is named")
        if re.match(r"[a-z]{3,5}://", text, re.IGNORECASE):
            return Refusal(shown, "is_a_web_address", f"{where}; download it first, or see src/scrape.py")
        if len(text) > _MAX_PATH or "\0" in text:
            return Refusal(where, "bad_row", "no usable path")
        spellings = dict.fromkeys((text, text.replace("\\", "/")))
        for path in (folder / one for folder in (table.path.parent, self.root) for one in spellings):
            try:
                resolved = path.resolve()
                if path.exists() and not resolved.is_relative_to(self.root):
                    return Refusal(shown, "outside_source", where)
                if resolved.is_file():
                    return resolved
                if path.exists():
                    return Refusal(shown, "not_a_file", where)
            except (OSError, RuntimeError, ValueError) as error:
                return Refusal(shown, "unreadable_file", f"{where}: {getattr(error, 'strerror', error)}")
        return Refusal(shown, "missing_file", where)


def _plain(text: str) -> str:
    """Return a cell as one line."""
    return " ".join(text.split())
