"""Calibration figures are the textbook's; temperature and thresholds keep their promises."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from skincare import calibration
from skincare.categories import CATEGORIES
from skincare.errors import StageError
from tests.helpers import prediction


def made(n, sharpness=1.0, seed=0, scale=2.0):
    """Calibrated log-probabilities, then sharpened: truths are drawn from the calibrated ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 14)) * scale
    table = calibration.with_temperature(logits, 1.0)
    truths = np.array([rng.choice(14, p=np.exp(row) / np.exp(row).sum()) for row in table])
    return calibration.with_temperature(table, 1 / sharpness), truths


def test_probabilities_still_add_up_after_a_temperature():
    table, _ = made(50)
    for temperature in (0.1, 1.0, 7.0):
        scaled = calibration.with_temperature(table, temperature)
        assert np.exp(scaled).sum(axis=1) == pytest.approx(1)
        assert (scaled.argmax(1) == table.argmax(1)).all()


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_undoes_what_was_done(sharpness):
    table, truths = made(4000, sharpness)
    temperature = calibration.fit_temperature(table, truths)
    assert temperature == pytest.approx(sharpness, rel=0.08)
    before, after = (calibration.expected_calibration_error(calibration.reliability(one, truths))
                     for one in (table, calibration.with_temperature(table, temperature)))  # fmt: skip
    assert after < 0.03
    assert after <= before + 0.005


def test_bins_hold_equally_many_and_all():
    table, truths = made(103)
    bins = calibration.reliability(table, truths)
    assert sum(one.n for one in bins) == 103
    assert max(one.n for one in bins) - min(one.n for one in bins) <= 1
    assert [one.confidence for one in bins] == sorted(one.confidence for one in bins)
    assert len(calibration.reliability(table[:4], truths[:4])) == 4


def test_the_brier_score_is_scikit_learns():
    table, truths = made(200)
    expected = sum(brier_score_loss(truths == place, np.exp(table[:, place])) for place in range(14))
    assert calibration.brier_score(table, truths) == pytest.approx(expected)


def test_risk_is_that_of_the_answered_and_ends_at_the_whole():
    table, truths = made(300)
    points = calibration.risk_coverage(table, truths)
    assert points[-1].coverage == 1
    assert points[-1].risk == pytest.approx((table.argmax(1) != truths).mean())
    confidence = np.exp(table.max(1))
    for point in points[::37]:
        answered = confidence >= point.threshold
        assert point.coverage == pytest.approx(answered.mean())
        assert point.risk == pytest.approx((table.argmax(1) != truths)[answered].mean())
    assert 0 < calibration.area_under_risk_coverage(points) < points[-1].risk


def test_a_perfect_ranking_has_the_least_area():
    table, _ = made(100)
    best = table.argmax(1)
    order = np.argsort(-table.max(1))
    wrong_last, wrong_first = best.copy(), best.copy()
    wrong_last[order[-20:]] = (best[order[-20:]] + 1) % 14
    wrong_first[order[:20]] = (best[order[:20]] + 1) % 14
    areas = [
        calibration.area_under_risk_coverage(calibration.risk_coverage(table, one)) for one in (wrong_last, wrong_first)
    ]
    assert areas[0] < areas[1]


def test_a_threshold_keeps_its_promise_nineteen_times_in_twenty():
    """Chosen on 300 pictures for a risk of 30 %, the true risk exceeds it in at most one of twenty trials."""
    population, truths = made(20_000, seed=9, scale=4.0)
    confidence, wrong = np.exp(population.max(1)), population.argmax(1) != truths
    rng, broken, found = np.random.default_rng(1), 0, 0
    for _ in range(60):
        some = rng.choice(len(truths), 300, replace=False)
        point = calibration.threshold_for_risk(population[some], truths[some], 0.3)
        if point:
            found += 1
            broken += wrong[confidence >= point.threshold].mean() > 0.3
    assert found >= 30
    assert broken <= 5


def test_no_threshold_is_better_than_a_wrong_one():
    table, truths = made(30)
    assert calibration.threshold_for_risk(table, (table.argmax(1) + 1) % 14, 0.1) is None
    assert calibration.threshold_for_risk(table[:3], truths[:3], 0.01) is None


def test_answers_without_probabilities_say_so():
    with pytest.raises(StageError, match="--decoder rank"):
        calibration.table_of([prediction("1_1", "Oil", "Oil")])


def test_a_summary_chooses_on_val_and_reads_test():
    def said(n, seed):
        table, truths = made(n, 2.0, seed)
        return [
            prediction(f"{i}_1", CATEGORIES[truths[i]], CATEGORIES[row.argmax()], log_probabilities=tuple(row))
            for i, row in enumerate(table)
        ]

    found = calibration.summarise(said(200, 1), said(150, 2), (0.1, 0.3))
    assert (found["n_val"], found["n_test"]) == (200, 150)
    assert found["ece"] < found["ece_before"]
    assert found["temperature"] == pytest.approx(2, rel=0.35)
    assert [one["wanted_risk"] for one in found["wanted"]] == [0.1, 0.3]
