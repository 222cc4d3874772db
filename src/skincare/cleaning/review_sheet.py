"""The contact sheet of images around a threshold: one self-contained HTML page, and the table of its images.

Marks are made in the browser and saved there as a CSV; `read_marks` takes only what belongs to the sheet.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image

from skincare.cleaning.image_tables import MARKS, REVIEW, ReviewRow
from skincare.cleaning.quality import Box
from skincare.cleaning.thresholds import Marked
from skincare.errors import StageError
from skincare.files import write_text
from skincare.html_pages import jpeg_data_uri, template_environment
from skincare.images import BrokenImageError, decode
from skincare.paths import Layout

# On each side of the threshold: a quarter of an hour's work.
N_EACH_SIDE: Final = 40
# The size at which sharpness is measured; never enlarged, which would look blurred.
_SIDE_PX: Final = 384
_QUALITY: Final = 82
# Of all images in base64, so that the page stays below 10 MB.
_MAX_CHARACTERS: Final = 9_400_000


@dataclass(frozen=True)
class Measured:
    """An image with its value of a check; box: the part to show, None for all of it."""

    image_id: str
    product_id: str
    file: str
    value: float
    box: Box | None


@dataclass(frozen=True)
class Question:
    """A check and its threshold: the least value that passes, or the most."""

    check: str
    meaning: str
    threshold: float
    is_least: bool

    def rejects(self, value: float) -> bool:
        """Tell whether the check rejects an image of this value."""
        return value < self.threshold if self.is_least else value > self.threshold


def choose(question: Question, images: Sequence[Measured], n: int = N_EACH_SIDE) -> list[Measured]:
    """Return the n images next to the threshold on either side, or as many as there are, by value."""

    def distance(one: Measured) -> tuple[float, str]:
        return abs(one.value - question.threshold), one.image_id

    sides = [[one for one in images if question.rejects(one.value) == side] for side in (True, False)]
    chosen = [one for side in sides for one in sorted(side, key=distance)[:n]]
    return sorted(chosen, key=lambda one: (one.value, one.image_id))


def write_sheet(question: Question, images: Sequence[Measured], layout: Layout) -> int:
    """Write page and table of the images around the threshold; return how many are shown."""
    thumbnails: dict[str, str] = {}
    nearest = sorted(images, key=lambda one: (abs(one.value - question.threshold), one.image_id))
    for one in nearest:
        thumbnail = _thumbnail(layout, one)
        if sum(map(len, thumbnails.values())) + len(thumbnail) > _MAX_CHARACTERS:
            break
        thumbnails[one.image_id] = thumbnail
    rows = [
        ReviewRow("", question.check, question.threshold, question.is_least, one.image_id, one.product_id, one.file,
                  round(one.value, 4))
        for one in images if one.image_id in thumbnails
    ]  # fmt: skip
    sheet = _digest(rows)
    rows = [replace(row, sheet=sheet) for row in rows]
    page = template_environment().get_template("review.html.j2").render(
        question=question, sheet=sheet, rows=rows, thumbnails=thumbnails,
        n_rejected=sum(question.rejects(row.value) for row in rows),
    )  # fmt: skip
    REVIEW.write(layout.review_table(question.check), rows)
    write_text(layout.review_sheet(question.check), page)
    return len(rows)


def read_marks(path: Path, layout: Layout, check: str | None) -> tuple[ReviewRow, list[Marked]]:
    """Return a row of the sheet that was marked, for its check and threshold, and the marks.

    check: the requested one, None for that of the marks. Raises StageError for marks of another check or sheet,
    of unknown images, with a changed value, marked twice or otherwise than keep or reject.
    """
    marks = MARKS.read(path)
    if not marks:
        raise StageError(f"{path}: no image is marked\n{MARKS.remedy}")
    checks = {mark.check for mark in marks}
    if len(checks) > 1 or check not in (None, *checks):
        raise StageError(f"{path}: marks of {', '.join(sorted(checks))}, wanted are those of {check or 'one check'}")
    table = layout.review_table(_plain_word(marks[0].check, path))
    rows = REVIEW.read(table)
    shown = {row.image_id: row for row in rows}
    sheets = {row.sheet for row in rows}
    if sheets != {_digest([replace(row, sheet="") for row in rows])}:
        raise StageError(f"{table}: changed since the sheet was written\n{REVIEW.remedy}")
    found: dict[str, Marked] = {}
    for mark in marks:
        row = shown.get(mark.image_id)
        if {mark.sheet} != sheets:
            raise StageError(f"{path}: made on another sheet ({mark.sheet}) than the last one\n{REVIEW.remedy}")
        if row is None or row.value != mark.value:
            raise StageError(f"{path}: {mark.image_id} with value {mark.value:g} is not on the sheet")
        if mark.image_id in found or mark.verdict not in ("keep", "reject"):
            raise StageError(f"{path}: {mark.image_id} must be marked once, keep or reject; not {mark.verdict!r}")
        found[mark.image_id] = Marked(row.value, mark.verdict == "keep", row.product_id)
    return rows[0], list(found.values())


def _plain_word(check: str, path: Path) -> str:
    """Return the name of a check, which becomes part of a file name."""
    if not check.isascii() or not check.replace("_", "").isalnum():
        raise StageError(f"{path}: {check!r} is no check")
    return check


def _digest(rows: Sequence[ReviewRow]) -> str:
    """Return a digest that identifies a sheet."""
    text = repr(sorted(astuple(row) for row in rows))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _thumbnail(layout: Layout, one: Measured) -> str:
    """Return an image, or the part of it that counts, as a data URI."""
    try:
        image = decode((layout.root / one.file).read_bytes())
    except (OSError, BrokenImageError) as error:
        raise StageError(f"{one.file}: {error}; run clean.py again") from error
    image = image.crop(one.box) if one.box else image
    image.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    return jpeg_data_uri(image, _QUALITY)
