"""Cells and lines of CSV tables: values to text and back, and texts that no spreadsheet evaluates."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, get_args

# Characters that spreadsheets interpret as the start of a formula, or as blanks before one.
# Source: OWASP, "CSV Injection".
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER: Final = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", re.IGNORECASE)


def for_spreadsheet(text: str) -> str:
    """Return a cell that displays `text` and is never evaluated: "=1+1" -> "'=1+1"; numbers stay numbers."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_spreadsheet(cell: str) -> str:
    """Return the text of a cell that `for_spreadsheet` returned."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_line(cells: Sequence[str]) -> str:
    """Return a line of CSV, ending in `\\n`, that every reader takes for one row."""
    # Python 3.12 and older do not quote a carriage return by themselves.
    has_return = any("\r" in cell for cell in cells)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL)
    writer.writerow(cells)
    return buffer.getvalue()


class NumberedLines:
    """The lines of a CSV file and the number of the last one that was read."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.number = 0
        self._lines = iter(lines)

    def __iter__(self) -> Iterator[str]:
        """Return the lines, which can be read once."""
        return self

    def __next__(self) -> str:
        """Return the next line."""
        line = next(self._lines)
        self.number += 1
        return line


def to_cell(value: object) -> str:
    """Return the cell of a value; None is an empty one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def from_cell(cell: str | None, kind: Any) -> Any:
    """Return the value of a cell whose column has a type; raises ValueError for a cell of another type."""
    if cell is None:
        raise ValueError("too few cells")
    if cell == "" and type(None) in get_args(kind):
        return None
    for plain in get_args(kind) or (kind,):
        if plain is bool and cell in ("true", "false"):
            return cell == "true"
        if plain in (int, float, str):
            return plain(cell)
    raise ValueError(f"{cell!r} is no {getattr(kind, '__name__', kind)}")
