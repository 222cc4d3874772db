"""Marks become a threshold to type, or the reason why there is none."""

import json

import pytest

from skincare.cleaning import threshold_review
from skincare.cleaning.image_tables import MARKS
from skincare.errors import StageError
from skincare.paths import Layout
from tests.test_review_sheet import QUESTION, marks_of, measured


@pytest.fixture
def layout(tmp_path):
    found = Layout(tmp_path)
    threshold_review.review(QUESTION, measured(found, 40), found)
    return found


def calibrate(layout, verdict, **options):
    path = layout.root / "marks.csv"
    MARKS.write(path, marks_of(layout, verdict))
    return threshold_review.calibrate(path, None, options.get("keep_good"), layout)


def test_a_better_threshold_is_proposed_and_recorded(layout):
    summary = calibrate(layout, lambda row: "keep" if row.value >= 80 else "reject")
    found = json.loads(layout.threshold_calibration.read_text())
    assert 78 <= found["proposal"]["threshold"] <= 80
    assert found["proposal"]["low"] <= found["proposal"]["threshold"] <= found["proposal"]["high"]
    assert found["criterion"] == "best balanced accuracy"
    assert f"--thresholds blurred {found['proposal']['threshold']:.5g}" in summary.headline
    present = next(one for one in found["thresholds"] if one["threshold"] == 60)
    assert present["precision"] == 1
    assert present["recall"] == pytest.approx(19 / 26)
    best = next(one for one in found["thresholds"] if one["threshold"] == found["proposal"]["threshold"])
    assert best["balanced_accuracy"] == 1


def test_a_threshold_that_the_marks_do_not_distinguish_from_the_present_one_is_reported(layout):
    assert (
        "cannot distinguish it from the present 60"
        in calibrate(
            layout, lambda row: "keep" if (row.value >= 60) != (row.image_id in ("19_1", "21_1")) else "reject"
        ).headline
    )


def test_one_sided_marks_leave_the_threshold(layout):
    summary = calibrate(layout, lambda row: "keep")
    assert "stays at 60" in summary.headline
    assert "one-sided" in json.loads(layout.threshold_calibration.read_text())["no_proposal_because"]


def test_a_share_that_cannot_be_is_refused(layout):
    with pytest.raises(StageError, match="--keep-good"):
        calibrate(layout, lambda row: "keep", keep_good=1.5)
