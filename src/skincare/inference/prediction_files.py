"""Predictions of images as CSV, as JSON lines and as a table, written row by row, and files that can be resumed.

Each batch of rows is one write, so that an interrupted run leaves whole rows, except perhaps a torn last one, which
`finished_rows` cuts off.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final, Literal

from skincare.errors import StageError
from skincare.files import check_writable
from skincare.inference.image_predictions import OUTCOMES, ImagePrediction, Outcome
from skincare.prompts import Target
from skincare.table_cells import csv_line, for_spreadsheet, from_spreadsheet

Format = Literal["table", "csv", "jsonl"]
COLUMNS: Final = ("file", "category", "probability", "status", "answer", "outcome", "reason", "parent", "top", "text")
_SHOWN: Final = COLUMNS[:5]
_FORMATS: Final[dict[str, Format]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


@cache
def columns_of(target: Target) -> tuple[str, ...]:
    """Return the columns of CSV; of structured answers each field with the confidence of its value."""
    if target == "category":
        return COLUMNS
    from skincare.product.schema import FIELDS  # pydantic would slow the start of predict.py

    fields = [column for name in FIELDS for column in (name, f"{name}_confidence")]
    return ("file", "outcome", "status", "reason", *fields, "answer", "text")


def format_of(path: Path) -> Format:
    """Return the format that a file's suffix stands for; raises StageError for another suffix."""
    if path.suffix.lower() not in _FORMATS:
        raise StageError(f"--out {path}: end its name in .jsonl (JSON lines) or .csv")
    return _FORMATS[path.suffix.lower()]


def format_rows(
    rows: Sequence[ImagePrediction], form: Format, name_width: int = 0, target: Target = "category"
) -> str:  # fmt: skip
    """Return the lines of rows, without a header. name_width: of the table's first column."""
    if form == "jsonl":
        return "".join(f"{json.dumps(row.to_json(), ensure_ascii=False)}\n" for row in rows)
    if form == "csv":
        cells = _cells if target == "category" else _product_cells
        return "".join(_csv_line(cells(row)) for row in rows)
    return "".join(_table_line(_cells(row)[: len(_SHOWN)], name_width) for row in rows)


def header(form: Format, name_width: int = 0, target: Target = "category") -> str:
    """Return the line above the rows; empty for JSON lines."""
    if form == "jsonl":
        return ""
    return _csv_line(columns_of(target)) if form == "csv" else _table_line(_SHOWN, name_width)


class PredictionWriter:
    """Writes rows as they come, to an open file or to standard output, and flushes each batch."""

    def __init__(
        self, file: BinaryIO | None, form: Format, name_width: int = 0, *, is_new: bool = True,
        target: Target = "category",
    ) -> None:  # fmt: skip
        self._file = file
        self._form: Format = form
        self._name_width = name_width
        self._target: Target = target
        if is_new:
            self._write(header(form, name_width, target))

    def write(self, rows: Sequence[ImagePrediction]) -> None:
        """Write and flush a batch of rows."""
        self._write(format_rows(rows, self._form, self._name_width, self._target))

    def _write(self, text: str) -> None:
        # A file name that is not UTF-8 holds lone surrogates.
        content = text.encode("utf-8", "backslashreplace")
        if self._file is None:
            sys.stdout.write(content.decode())
            sys.stdout.flush()
        else:
            self._file.write(content)
            self._file.flush()


class FinishedRows:
    """How often each file has a row of each outcome; a few bytes per row."""

    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()

    def __len__(self) -> int:
        """Return the number of rows that were not taken."""
        return self._counts.total()

    def add(self, file: str, outcome: str) -> None:
        """Count a row."""
        self._counts[_key(file, outcome)] += 1

    def take(self, file: str) -> Outcome | None:
        """Return the outcome of a row of a file and discard the row; None if there is none left."""
        for outcome in OUTCOMES:
            key = _key(file, outcome)
            if self._counts[key]:
                self._counts[key] -= 1
                return outcome
            del self._counts[key]
        return None


def finished_rows(path: Path, form: Format, target: Target = "category") -> FinishedRows:
    """Return the rows of an interrupted file, from which a torn last row is cut off; none if there is no file.

    Raises StageError if the file is not one of these predictions.
    """
    found, columns = FinishedRows(), columns_of(target)
    check_writable(path)
    if not path.is_file():
        return found
    with path.open("rb+") as file:
        end = 0
        for number, record in enumerate(_records(file, form), start=1):
            row = _parsed(record, form, target) if record.endswith(b"\n") else None
            if row is None:
                is_own = number > 1 or record.startswith(b'{"file": ') or ",".join(columns).encode().startswith(record)
                if file.read(1) or not is_own:
                    raise StageError(f"{path}, row {number}: not a prediction; leave out --resume to replace the file")
                break
            end += len(record)
            if row != ("", ""):
                found.add(*row)
        file.truncate(end)
    return found


def _records(file: BinaryIO, form: Format) -> Iterator[bytes]:
    """Yield the lines of a file; lines of CSV that are inside quotes are joined."""
    record = b""
    for line in iter(file.readline, b""):
        record += line
        if form == "csv" and record.count(b'"') % 2:
            continue
        yield record
        record = b""
    if record:
        yield record


def _parsed(record: bytes, form: Format, target: Target) -> tuple[str, str] | None:
    """Return file and outcome of a row of the target; two empty strings for the header, None for anything else."""
    columns = columns_of(target)
    try:
        if form == "jsonl":
            row = json.loads(record)
            if ("product" in row) != (target == "product"):
                raise StageError("--resume: the file has rows of another --target; leave out --resume to replace it")
            file, outcome = row["file"], row["outcome"]
        else:
            (cells,) = csv.reader(io.StringIO(record.decode(), newline=""), strict=True)
            if tuple(cells) == columns:
                return "", ""
            row = dict(zip(columns, cells, strict=True))
            file, outcome = from_spreadsheet(row["file"]), row["outcome"]
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error):
        return None
    return (file, outcome) if isinstance(file, str) and outcome in OUTCOMES else None


def _key(file: str, outcome: str) -> bytes:
    # As it is written: lone surrogates become escapes in CSV.
    return blake2b(file.encode("utf-8", "backslashreplace"), digest_size=12).digest() + outcome[:1].encode()


def _cells(row: ImagePrediction) -> list[str]:
    """Return the cells of a prediction in the order of COLUMNS; without a probability, its cell is empty."""
    probability = "" if row.probability is None else f"{row.probability:.4f}"
    top = "; ".join(f"{one.label} {one.probability:.4f}" for one in row.top)
    text = " | ".join(row.text)
    return [
        row.file, row.category, probability, row.status, row.answer, row.outcome, row.reason, row.parent, top, text,
    ]  # fmt: skip


def _product_cells(row: ImagePrediction) -> list[str]:
    """Return the cells of a structured answer in the order of `columns_of`; ingredients are joined by semicolons."""
    product = row.product or {}
    cells = [row.file, row.outcome, row.status, row.reason]
    for name in columns_of("product")[4:-2:2]:
        value, confidence = product.get(name), row.confidences.get(name)
        cells.append("" if value is None else "; ".join(value) if isinstance(value, list) else str(value))
        cells.append("" if confidence is None else f"{confidence:.4f}")
    return [*cells, row.answer, " | ".join(row.text)]


def _csv_line(cells: Sequence[str]) -> str:
    # A generated or printed text may be a spreadsheet formula.
    return csv_line([for_spreadsheet(cell) for cell in cells])


def _table_line(cells: Sequence[str], name_width: int) -> str:
    # A generated text or a file name may hold line ends or terminal escapes.
    file, category, probability, status, answer = (
        "".join(letter if letter.isprintable() else " " for letter in cell) for cell in cells
    )
    return f"{file:{name_width}}  {category:12}  {probability:11}  {status:12}  {answer}\n"
