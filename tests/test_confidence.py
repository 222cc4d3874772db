"""What is chosen is chosen on val, what is told is told of test."""

import json

import numpy as np
import pytest

from skincare.evaluation import calibration, confidence
from skincare.labels import skincare_labels
from tests.helpers import prediction
from tests.test_calibration import made

CATEGORIES = skincare_labels().names


def said(n, seed):
    table, truths = made(n, 2.0, seed, scale=4.0)
    return [
        prediction(f"{i}_1", CATEGORIES[truths[i]], CATEGORIES[row.argmax()], log_probabilities=tuple(row))
        for i, row in enumerate(table)
    ]


def test_a_summary_chooses_on_val_and_reads_test():
    found = confidence.summarise(said(400, 1), said(150, 2), (0.1, 0.3), skincare_labels())
    assert (found["n_val"], found["n_test"]) == (400, 150)
    assert found["ece"] < found["ece_before"]
    assert found["temperature"] == pytest.approx(2, rel=0.35)
    assert found["aurc_optimal"] < found["aurc"] < found["aurc_random"] == pytest.approx(1 - found["accuracy"])
    wanted = found["wanted"][1]
    assert wanted["val_risk"] <= wanted["val_bound"] <= wanted["wanted_risk"] == 0.3
    low, high = wanted["test_risk_interval"]
    assert low <= wanted["test_risk"] <= high
    json.dumps(found, allow_nan=False)


def test_test_has_no_say_in_what_is_chosen():
    first, second = (confidence.summarise(said(400, 1), said(150, seed), (0.3,), skincare_labels()) for seed in (2, 3))
    assert first["temperature"] == second["temperature"]
    assert first["wanted"][0]["threshold"] == second["wanted"][0]["threshold"]
    thresholds = ("category_threshold", "family_threshold")
    one, other = (found["hierarchy"]["policies"][0] for found in (first, second))
    assert [one[name] for name in thresholds] == [other[name] for name in thresholds]


def test_the_order_of_the_answers_changes_nothing():
    val, test = said(200, 1), said(100, 2)
    assert (
        confidence.summarise(val, test, (0.3,), skincare_labels())["wanted"]
        == confidence.summarise(val[::-1], test[::-1], (0.3,), skincare_labels())["wanted"]
    )


def test_without_errors_and_with_nothing_but_errors_there_is_still_a_summary():
    sure = tuple(np.log([0.87] + [0.01] * 13))
    for truth in ("Moisturiser", "Oil"):
        some = [prediction(f"{i}_1", truth, "Moisturiser", log_probabilities=sure) for i in range(30)]
        json.dumps(confidence.summarise(some, some, (0.2,), skincare_labels()), allow_nan=False)


def test_the_report_finds_every_figure():
    found = confidence.summarise(said(200, 1), said(100, 2), (0.3, 0.0), skincare_labels())
    table, truths = calibration.as_arrays(said(100, 2), skincare_labels())
    assert found["ece_before"] == calibration.expected_calibration_error(calibration.reliability(table, truths))
    assert found["brier_before"] == calibration.brier_score(table, truths)
    assert len(found["risk_coverage"]) == 100
    assert len(found["reliability"]) > 1
    chosen, impossible = found["wanted"]
    assert 0 < chosen["val_coverage"] <= 1
    assert 0 < chosen["test_coverage"] <= 1
    assert 0 < chosen["threshold"] < 1
    assert impossible == {
        "wanted_risk": 0.0, "threshold": None, "val_coverage": 0.0, "val_risk": None, "val_bound": None,
        "test_coverage": 0.0, "test_risk": None, "test_risk_interval": None,
    }  # fmt: skip
