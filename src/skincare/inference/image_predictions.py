"""What is predicted for one image, and how it is shown: rows in, a table or a CSV file's text out."""

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
    """What is known about one image. `answer`: a model's words, or the pack's words that decided."""

    file: str
    category: str
    probability: float | None
    status: str
    answer: str

    def cells(self) -> list[str]:
        """Return the row as text; an image whose predictor gives no probability has an empty cell."""
        probability = "" if self.probability is None else f"{self.probability:.4f}"
        return [self.file, self.category, probability, self.status, self.answer]


def open_image(file: Path) -> Pixels | ImagePrediction:
    """Return the image of a file, or the row that says why there is none."""
    try:
        return images.decode_with_notes(file.read_bytes()).pixels
    except (OSError, ValueError) as error:
        return ImagePrediction(str(file), UNKNOWN, None, "unreadable", str(error))


class Predictor(Protocol):
    """Predicts images; `name` says with what, for the stage's summary."""

    name: str

    def __call__(self, files: Sequence[Path]) -> list[ImagePrediction]:
        """Return one row per file, in order; a file that is no image is a row with the reason."""
        ...


def abstain_below(row: ImagePrediction, min_confidence: float | None) -> ImagePrediction:
    """Return the row, without its category where that is not probable enough; the answer stays to be read."""
    if min_confidence is None or row.probability is None or row.probability >= min_confidence:
        return row
    return row if row.category == UNKNOWN else replace(row, category=UNKNOWN, status="abstained")


def to_csv(rows: Sequence[ImagePrediction]) -> str:
    """Return the rows as CSV with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(field.name for field in fields(ImagePrediction))
    # A model's words and a pack's may be anything, also a formula.
    writer.writerows([for_spreadsheet(cell) for cell in row.cells()] for row in rows)
    return buffer.getvalue()


def to_table(rows: Sequence[ImagePrediction]) -> str:
    """Return the rows as aligned text with a header."""
    return "".join(f"{line}\n" for line in _lines(rows))


def _lines(rows: Sequence[ImagePrediction]) -> Iterator[str]:
    width = max(len("file"), *(len(row.file) for row in rows))
    for cells in ([field.name for field in fields(ImagePrediction)], *(row.cells() for row in rows)):
        # A model's words and a file's name may hold line ends or terminal escapes; one image is one harmless line.
        file, category, probability, status, answer = (
            "".join(letter if letter.isprintable() else " " for letter in cell) for cell in cells
        )
        yield f"{file:{width}}  {category:12}  {probability:11}  {status:12}  {answer}"
