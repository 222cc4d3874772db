"""Predictions of images as CSV, as JSON lines, and as a table for the terminal."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Final

from skincare.inference.image_predictions import ImagePrediction
from skincare.tables import for_spreadsheet

COLUMNS: Final = ("file", "category", "probability", "status", "answer", "outcome", "reason", "parent", "top", "text")
_SHOWN: Final = COLUMNS[:5]


def csv_row(cells: Sequence[str]) -> str:
    """Return one line of CSV, with its line end; no cell is a formula of a spreadsheet."""
    buffer = io.StringIO()
    # A generated or printed text may be a spreadsheet formula.
    csv.writer(buffer, lineterminator="\n").writerow([for_spreadsheet(cell) for cell in cells])
    return buffer.getvalue()


def cells_of(row: ImagePrediction) -> list[str]:
    """Return the cells of a prediction in the order of COLUMNS; without a probability, its cell is empty."""
    probability = "" if row.probability is None else f"{row.probability:.4f}"
    top = "; ".join(f"{one.label} {one.probability:.4f}" for one in row.top)
    return [row.file, row.category, probability, row.status, row.answer, row.outcome, row.reason, row.parent, top,
            " | ".join(row.text)]  # fmt: skip


def json_line(row: ImagePrediction) -> bytes:
    """Return one line of JSON, with its line end; a file name that is no UTF-8 keeps its bytes as escapes."""
    return f"{json.dumps(row.to_json(), ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")


def to_csv(rows: Sequence[ImagePrediction]) -> str:
    """Return the rows as CSV with a header."""
    return "".join([csv_row(COLUMNS), *(csv_row(cells_of(row)) for row in rows)])


def to_table(rows: Sequence[ImagePrediction]) -> str:
    """Return the rows as aligned text with a header."""
    return "".join(f"{line}\n" for line in _lines(rows))


def _lines(rows: Sequence[ImagePrediction]) -> Iterator[str]:
    width = max(len("file"), *(len(row.file) for row in rows))
    for cells in (_SHOWN, *(cells_of(row)[: len(_SHOWN)] for row in rows)):
        # A generated text or a file name may hold line ends or terminal escapes.
        file, category, probability, status, answer = (
            "".join(letter if letter.isprintable() else " " for letter in cell) for cell in cells
        )
        yield f"{file:{width}}  {category:12}  {probability:11}  {status:12}  {answer}"
