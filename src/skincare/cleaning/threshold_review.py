"""Choice of a threshold: the sheet on which images around it are marked, and the evaluation of the marks.

The sheet is one self-contained HTML page with a table of its images. Marks are made in the browser and saved there as a
CSV; `read_marks` accepts only marks of the sheet. Neither changes the cleaned dataset.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from skincare.cleaning import thresholds
from skincare.cleaning.checks import Check
from skincare.cleaning.duplicates import Images
from skincare.cleaning.image_tables import MARKS, REVIEW, ReviewRow
from skincare.cleaning.quality import Box
from skincare.cleaning.thresholds import AtThreshold, Marked, Proposal
from skincare.errors import StageError
from skincare.files import write_json, write_text
from skincare.html_pages import jpeg_data_uri, template_environment
from skincare.images import BrokenImageError, decode
from skincare.paths import Layout
from skincare.runlog import Summary

logger = logging.getLogger(__name__)


# Images on each side of the threshold; marking them takes about a quarter of an hour.
N_EACH_SIDE: Final = 40
# The size at which sharpness is computed; images are never enlarged, since that would blur them.
_SIDE_PX: Final = 384
_QUALITY: Final = 82
# Maximum size of all images in base64; it keeps the page below 10 MB.
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
    """A check and its threshold, the minimum or the maximum that passes."""

    check: str
    meaning: str
    threshold: float
    is_least: bool

    def rejects(self, value: float) -> bool:
        """Return whether the check rejects an image with this value."""
        return value < self.threshold if self.is_least else value > self.threshold


def review_check(check: Check, images: Images, layout: Layout) -> Summary:
    """Write the review sheet of a check; for sharpness it shows only the content, on which sharpness is computed."""
    shows_content = check.reason == "blurred"
    measured = [
        Measured(row.image_id, row.product_id, row.file, float(check.value(one)), one.box if shows_content else None)
        for row, one in images
    ]
    return review(Question(check.reason, check.meaning, float(check.threshold), check.is_least), measured, layout)


def review(question: Question, images: Sequence[Measured], layout: Layout) -> Summary:
    """Write the sheet of the images around a threshold."""
    chosen = choose_images(question, images)
    if not chosen:
        raise StageError("No image can be read, so there is none to review; see log/cleaning_report.log")
    n = write_sheet(question, chosen, layout)
    sheet = layout.review_sheet(question.check)
    return Summary(
        headline=f"{n} of {len(images):,} images around {question.check} {question.threshold:g} to mark in a browser: "
        f"{sheet}\nThen `python src/clean.py --calibrate review_{question.check}_marks.csv`",
        counts={"shown": n, "not_shown": len(images) - n},
    )


def choose_images(question: Question, images: Sequence[Measured], n: int = N_EACH_SIDE) -> list[Measured]:
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


def calibrate(path: Path, check: str | None, keep_good: float | None, layout: Layout) -> Summary:
    """Evaluate the threshold on the marks of a sheet, and propose another."""
    if keep_good is not None and not 0 < keep_good <= 1:
        raise StageError(f"--keep-good {keep_good:g} is no share above 0 and up to 1")
    row, marks = read_marks(path, layout, check)
    criterion = "best balanced accuracy" if keep_good is None else f"strictest that keeps {keep_good:.0%} of the good"
    reason = thresholds.why_no_proposal(marks)
    proposal = None if reason else thresholds.propose(marks, row.limit, is_least=row.is_least, keep_good=keep_good)
    table = [
        thresholds.at_threshold(marks, threshold, is_least=row.is_least)
        for threshold in _shown(marks, row.limit, proposal)
    ]
    for line in _as_text(table, row.limit, proposal):
        logger.info("%s", line)
    results = {
        "check": row.check,
        "threshold": row.limit,
        "is_least": row.is_least,
        "n_keep": sum(one.is_good for one in marks),
        "n_reject": sum(not one.is_good for one in marks),
        "n_products": len({one.product_id for one in marks}),
        "criterion": criterion,
        "proposal": asdict(proposal) if proposal else None,
        "no_proposal_because": reason,
        "thresholds": [asdict(one) for one in table],
    }
    write_json(layout.threshold_calibration, results)
    return Summary(headline=_headline(row.check, row.limit, criterion, proposal, reason), results=results)


def _shown(marks: Sequence[Marked], threshold: float, proposal: Proposal | None) -> list[float]:
    """Return the present threshold, the proposed one, and six others across the marked values."""
    values = [one.value for one in marks]
    others = {float(f"{value:.3g}") for value in np.linspace(min(values), max(values), 8)[1:-1]}
    return sorted({threshold, *others, *([proposal.threshold] if proposal else [])})


def _as_text(table: Sequence[AtThreshold], threshold: float, proposal: Proposal | None) -> list[str]:
    lines = [
        "On the marked images; 95 % intervals over products:",
        f"{'threshold':>10} {'rejects':>8} {'precision':>22} {'recall':>22} {'good kept':>22} {'balanced':>9}",
    ]
    for one in table:
        note = " present" if one.threshold == threshold else ""
        note += " proposed" if proposal and one.threshold == proposal.threshold else ""
        lines.append(
            f"{one.threshold:>10.5g} {one.n_rejected:>8} {_share(one.precision, one.precision_interval):>22} "
            f"{_share(one.recall, one.recall_interval):>22} {_share(one.kept_good, one.kept_good_interval):>22} "
            f"{_share(one.balanced_accuracy, None):>9}{note}"
        )
    return lines


def _share(value: float | None, interval: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1%} ({interval[0]:.0%} to {interval[1]:.0%})" if interval else f"{value:.1%}"


def _headline(check: str, threshold: float, criterion: str, proposal: Proposal | None, reason: str) -> str:
    if proposal is None:
        return f"{check} stays at {threshold:g}: {reason}"
    found = f"{check} {proposal.threshold:.5g} ({proposal.low:.5g} to {proposal.high:.5g}; {criterion})"
    if proposal.low <= threshold <= proposal.high:
        found += f"; the marks cannot distinguish it from the present {threshold:g}"
    return f"{found}; to use it: python src/clean.py --thresholds {check} {proposal.threshold:.5g}"


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
    """Return an image, or the part of it to show, as a data URI."""
    try:
        image = decode((layout.root / one.file).read_bytes())
    except (OSError, BrokenImageError) as error:
        raise StageError(f"{one.file}: {error}; run clean.py again") from error
    image = image.crop(one.box) if one.box else image
    image.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    return jpeg_data_uri(image, _QUALITY)
