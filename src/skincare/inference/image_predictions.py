"""Predictions of image files, and their output as a table or as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

from skincare import images
from skincare.images import Pixels
from skincare.labels import UNKNOWN
from skincare.tables import for_spreadsheet


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction of one file. `answer`: the text that a model generated, or the phrases that the reader found."""

    file: str
    category: str
    probability: float | None
    status: str
    answer: str

    def cells(self) -> list[str]:
        """Return the row as text; without a probability, the cell is empty."""
        probability = "" if self.probability is None else f"{self.probability:.4f}"
        return [self.file, self.category, probability, self.status, self.answer]


def open_image(file: Path) -> Pixels | ImagePrediction:
    """Return the image of a file, or a prediction with the reason why it cannot be read."""
    try:
        return images.decode_with_notes(file.read_bytes()).pixels
    except (OSError, ValueError) as error:
        return ImagePrediction(str(file), UNKNOWN, None, "unreadable", str(error))


class Predictor(Protocol):
    """Predicts image files; `name` describes it in the stage's summary."""

    name: str

    def __call__(self, files: Sequence[Path]) -> list[ImagePrediction]:
        """Return one prediction per file, in order; for a file that is no image with the reason."""
        ...


def abstain_below(row: ImagePrediction, min_confidence: float | None) -> ImagePrediction:
    """Return the prediction with the category Unknown if its probability is below the threshold."""
    if min_confidence is None or row.probability is None or row.probability >= min_confidence:
        return row
    return row if row.category == UNKNOWN else replace(row, category=UNKNOWN, status="abstained")


def to_csv(rows: Sequence[ImagePrediction]) -> str:
    """Return the rows as CSV with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(field.name for field in fields(ImagePrediction))
    # A generated or printed text may be a spreadsheet formula.
    writer.writerows([for_spreadsheet(cell) for cell in row.cells()] for row in rows)
    return buffer.getvalue()


def to_table(rows: Sequence[ImagePrediction]) -> str:
    """Return the rows as aligned text with a header."""
    return "".join(f"{line}\n" for line in _lines(rows))


def _lines(rows: Sequence[ImagePrediction]) -> Iterator[str]:
    width = max(len("file"), *(len(row.file) for row in rows))
    for cells in ([field.name for field in fields(ImagePrediction)], *(row.cells() for row in rows)):
        # A generated text or a file name may hold line ends or terminal escapes.
        file, category, probability, status, answer = (
            "".join(letter if letter.isprintable() else " " for letter in cell) for cell in cells
        )
        yield f"{file:{width}}  {category:12}  {probability:11}  {status:12}  {answer}"
