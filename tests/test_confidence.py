"""Temperature and thresholds are chosen on val; all metrics are of test."""

import json
from dataclasses import replace

import numpy as np
import pytest

from skincare.evaluation import calibration, confidence
from skincare.labels import skincare_labels
from tests.helpers import prediction
from tests.test_calibration import made

CATEGORIES = skincare_labels().names


def ranked(n, seed):
    table, truths = made(n, 2.0, seed, scale=4.0)
    return [
        prediction(f"{i}_1", CATEGORIES[truths[i]], CATEGORIES[row.argmax()], log_probabilities=tuple(row))
        for i, row in enumerate(table)
    ]


def test_summary_chooses_on_val_and_measures_on_test():
    found = confidence.summarise(ranked(400, 1), ranked(150, 2), (0.1, 0.3), skincare_labels())
    assert (found["n_val"], found["n_test"]) == (400, 150)
    assert found["ece"] < found["ece_before"]
    assert found["temperature"] == pytest.approx(2, rel=0.35)
    assert found["aurc_optimal"] < found["aurc"] < found["aurc_random"] == pytest.approx(1 - found["accuracy"])
    wanted = found["wanted"][1]
    assert wanted["val_risk"] <= wanted["val_bound"] <= wanted["wanted_risk"] == 0.3
    low, high = wanted["test_risk_interval"]
    assert low <= wanted["test_risk"] <= high
    json.dumps(found, allow_nan=False)


def test_the_interval_of_a_risk_is_over_products():
    """Ten images of each product say as much as one of each."""
    val, test = ranked(400, 1), ranked(60, 2)
    copies = [replace(one, image_id=f"{one.product_id}_{n}") for one in test for n in range(1, 11)]
    once, often = (confidence.summarise(val, part, (0.3,), skincare_labels()) for part in (test, copies))
    assert once["wanted"] == often["wanted"]
    assert once["wanted"][0]["test_risk_interval"] is not None
    assert once["hierarchy"]["policies"] == often["hierarchy"]["policies"]


def test_choices_do_not_depend_on_test():
    first, second = (
        confidence.summarise(ranked(400, 1), ranked(150, seed), (0.3,), skincare_labels()) for seed in (2, 3)
    )
    assert first["temperature"] == second["temperature"]
    assert first["wanted"][0]["threshold"] == second["wanted"][0]["threshold"]
    thresholds = ("category_threshold", "family_threshold")
    one, other = (found["hierarchy"]["policies"][0] for found in (first, second))
    assert [one[name] for name in thresholds] == [other[name] for name in thresholds]


def test_summary_does_not_depend_on_the_order():
    val, test = ranked(200, 1), ranked(100, 2)
    assert (
        confidence.summarise(val, test, (0.3,), skincare_labels())["wanted"]
        == confidence.summarise(val[::-1], test[::-1], (0.3,), skincare_labels())["wanted"]
    )


def test_summary_is_valid_json_for_all_correct_and_all_wrong():
    confident = tuple(np.log([0.87] + [0.01] * 13))
    for truth in ("Moisturiser", "Oil"):
        some = [prediction(f"{i}_1", truth, "Moisturiser", log_probabilities=confident) for i in range(30)]
        json.dumps(confidence.summarise(some, some, (0.2,), skincare_labels()), allow_nan=False)


def test_summary_holds_every_number_of_the_report():
    found = confidence.summarise(ranked(200, 1), ranked(100, 2), (0.3, 0.0), skincare_labels())
    table, truths = calibration.as_arrays(ranked(100, 2), skincare_labels())
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
