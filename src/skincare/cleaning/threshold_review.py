"""Choice of a threshold: the sheet on which images are marked, and the evaluation of the marks.

Neither changes the cleaned dataset. Out: see `skincare.cleaning.review_sheet`; log/clean_calibration.json.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skincare.cleaning import review_sheet, thresholds
from skincare.cleaning.checks import Check
from skincare.cleaning.duplicates import Images
from skincare.cleaning.review_sheet import Measured, Question
from skincare.cleaning.thresholds import AtThreshold, Marked, Proposal
from skincare.errors import StageError
from skincare.files import write_json
from skincare.paths import Layout
from skincare.runlog import Summary

logger = logging.getLogger(__name__)


def review_check(check: Check, images: Images, layout: Layout) -> Summary:
    """Write the sheet of a check; for sharpness it shows the content only, of which sharpness is computed."""
    shows_content = check.reason == "blurred"
    measured = [
        Measured(row.image_id, row.product_id, row.file, float(check.value(one)), one.box if shows_content else None)
        for row, one in images
    ]
    return review(Question(check.reason, check.meaning, float(check.threshold), check.is_least), measured, layout)


def review(question: Question, images: Sequence[Measured], layout: Layout) -> Summary:
    """Write the sheet of the images around a threshold."""
    chosen = review_sheet.choose(question, images)
    if not chosen:
        raise StageError("No image can be read, so there is none to review; see log/cleaning_report.log")
    n = review_sheet.write_sheet(question, chosen, layout)
    sheet = layout.review_sheet(question.check)
    return Summary(
        headline=f"{n} of {len(images):,} images around {question.check} {question.threshold:g} to mark in a browser: "
        f"{sheet}\nThen `python src/clean.py --calibrate review_{question.check}_marks.csv`",
        counts={"shown": n, "not_shown": len(images) - n},
    )


def calibrate(path: Path, check: str | None, keep_good: float | None, layout: Layout) -> Summary:
    """Evaluate the threshold on the marks of a sheet, and propose another."""
    if keep_good is not None and not 0 < keep_good <= 1:
        raise StageError(f"--keep-good {keep_good:g} is no share above 0 and up to 1")
    row, marks = review_sheet.read_marks(path, layout, check)
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
        "proposal": dataclasses.asdict(proposal) if proposal else None,
        "no_proposal_because": reason,
        "thresholds": [dataclasses.asdict(one) for one in table],
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
