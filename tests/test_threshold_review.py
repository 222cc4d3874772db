"""Marks become a threshold to type, or the reason why there is none."""

import json
from types import SimpleNamespace

import pytest

from skincare.cleaning import threshold_review
from skincare.cleaning.image_tables import MARKS
from skincare.cleaning.threshold_review import Measured, Question
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
    assert summary.headline.startswith("blurred stays at 60: the marks are one-sided")
    assert "one-sided" in json.loads(layout.threshold_calibration.read_text())["no_proposal_because"]


def test_a_share_that_cannot_be_is_refused(layout):
    with pytest.raises(StageError, match="--keep-good"):
        calibrate(layout, lambda row: "keep", keep_good=1.5)


def test_table_and_results_of_hand_made_marks(layout, caplog):
    """Values 3 to 120 in steps of 3; the images of 30 and more are good, but for one of them."""
    caplog.set_level("INFO")
    summary = calibrate(layout, lambda row: "keep" if row.value >= 30 and row.value != 90 else "reject")
    found = json.loads(layout.threshold_calibration.read_text())
    table = found.pop("thresholds")
    assert found == {
        "check": "blurred", "threshold": 60.0, "is_least": True, "n_keep": 30, "n_reject": 10, "n_products": 40,
        "criterion": "best balanced accuracy", "proposal": found["proposal"], "no_proposal_because": "",
    }  # fmt: skip
    assert found["proposal"]["threshold"] == 28.5
    assert summary.results["proposal"] == found["proposal"]
    # The six in between divide 3 to 120 into seven equal parts, with three digits.
    assert [one["threshold"] for one in table] == [19.7, 28.5, 36.4, 53.1, 60.0, 69.9, 86.6, 103.0]
    rows = {line.split()[0]: line for line in caplog.messages if line.split()[0].replace(".", "").isdigit()}
    assert rows["60"].endswith(" present")
    assert rows["28.5"].endswith(" proposed")
    assert sum(line.endswith(("present", "proposed")) for line in rows.values()) == 2
    at_60 = next(one for one in table if one["threshold"] == 60)
    low, high = at_60["precision_interval"]
    assert rows["60"].split() == [
        "60", "19", "47.4%", f"({low:.0%}", "to", f"{high:.0%})", "90.0%", f"({at_60['recall_interval'][0]:.0%}", "to",
        f"{at_60['recall_interval'][1]:.0%})", "66.7%", f"({at_60['kept_good_interval'][0]:.0%}", "to",
        f"{at_60['kept_good_interval'][1]:.0%})", "78.3%", "present",
    ]  # fmt: skip
    low, high = found["proposal"]["low"], found["proposal"]["high"]
    assert summary.headline == (
        f"blurred 28.5 ({low:.5g} to {high:.5g}; best balanced accuracy); to use it: python src/clean.py --thresholds "
        "blurred 28.5"
    )


def test_columns_of_the_table_are_aligned_and_undefined_shares_are_a_dash(layout, caplog):
    caplog.set_level("INFO")
    calibrate(layout, lambda row: "keep")
    lines = caplog.messages[caplog.messages.index("On the marked images; 95 % intervals over products:") + 1 :]
    assert lines[0] == (
        f"{'threshold':>10} {'rejects':>8} {'precision':>22} {'recall':>22} {'good kept':>22} {'balanced':>9}"
    )
    for line in lines[1:8]:
        assert len(line.removesuffix(" present")) == len(lines[0])
        assert line[44:65].strip() == "-", "no image is marked reject, so recall is undefined"
        assert line.removesuffix(" present").endswith("        -")


@pytest.mark.parametrize("keep_good", [0.9, 1.0])
def test_strictest_threshold_keeps_the_given_share_of_good_images(layout, keep_good):
    summary = calibrate(layout, lambda row: "keep" if row.value >= 33 else "reject", keep_good=keep_good)
    found = json.loads(layout.threshold_calibration.read_text())
    assert found["criterion"] == f"strictest that keeps {keep_good:.0%} of the good"
    at_proposal = next(one for one in found["thresholds"] if one["threshold"] == found["proposal"]["threshold"])
    assert at_proposal["kept_good"] >= keep_good
    assert found["criterion"] in summary.headline


def test_share_of_good_images_moves_the_proposal(layout):
    def verdict(row):
        return "keep" if row.value >= 60 or row.value in (15.0, 30.0) else "reject"

    proposals = []
    for keep_good in (None, 1.0):
        calibrate(layout, verdict, keep_good=keep_good)
        proposals.append(json.loads(layout.threshold_calibration.read_text())["proposal"]["threshold"])
    assert proposals == [pytest.approx(60, abs=1.5), 13.5]


@pytest.mark.parametrize("keep_good", [0.0, -0.5, 1.01])
def test_share_outside_zero_to_one_is_rejected(layout, keep_good):
    with pytest.raises(StageError, match=f"--keep-good {keep_good:g}"):
        calibrate(layout, lambda row: "keep", keep_good=keep_good)


def test_review_summarises_the_sheet(tmp_path):
    layout = Layout(tmp_path)
    summary = threshold_review.review(QUESTION, measured(layout, 100), layout)
    assert summary.counts == {"shown": 80, "not_shown": 20}
    assert summary.headline == (
        f"80 of 100 images around blurred 60 to mark in a browser: {layout.review_sheet('blurred')}\n"
        "Then `python src/clean.py --calibrate review_blurred_marks.csv`"
    )
    with pytest.raises(StageError, match="cleaning_report"):
        threshold_review.review(QUESTION, [], layout)


@pytest.mark.parametrize(("reason", "has_box"), [("blurred", True), ("too_small", False)])
def test_only_the_sheet_of_sharpness_shows_the_content_box(tmp_path, monkeypatch, reason, has_box):
    reviewed = []
    monkeypatch.setattr(threshold_review, "review", lambda *given: reviewed.append(given))
    check = SimpleNamespace(reason=reason, meaning="m", threshold=7, is_least=False, value=lambda one: one.n)
    row = SimpleNamespace(image_id="5_1", product_id="5", file="a.jpg")
    threshold_review.review_check(check, [(row, SimpleNamespace(n=3, box=(1, 2, 3, 4)))], Layout(tmp_path))
    ((question, images, layout),) = reviewed
    assert question == Question(reason, "m", 7.0, is_least=False)
    assert images == [Measured("5_1", "5", "a.jpg", 3.0, (1, 2, 3, 4) if has_box else None)]
    assert isinstance(images[0].value, float)
    assert layout == Layout(tmp_path)
