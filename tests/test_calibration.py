"""Calibration metrics equal their textbook definitions; temperature and thresholds keep their guarantees."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss

from skincare.errors import StageError
from skincare.evaluation import calibration
from skincare.labels import skincare_labels
from tests.helpers import prediction


def made(n, sharpness=1.0, seed=0, scale=2.0):
    """Calibrated log-probabilities, then sharpened: truths are drawn from the calibrated ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 14)) * scale
    table = calibration.apply_temperature(logits, 1.0)
    truths = np.array([rng.choice(14, p=np.exp(row) / np.exp(row).sum()) for row in table])
    return calibration.apply_temperature(table, 1 / sharpness), truths


def test_probabilities_sum_to_one_after_temperature_scaling():
    table, _ = made(50)
    for temperature in (0.1, 1.0, 7.0):
        scaled = calibration.apply_temperature(table, temperature)
        assert np.exp(scaled).sum(axis=1) == pytest.approx(1)
        assert (scaled.argmax(1) == table.argmax(1)).all()


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_fitted_temperature_inverts_a_known_scaling(sharpness):
    table, truths = made(4000, sharpness)
    temperature = calibration.fit_temperature(table, truths)
    assert temperature == pytest.approx(sharpness, rel=0.08)
    before, after = (calibration.expected_calibration_error(calibration.reliability(one, truths))
                     for one in (table, calibration.apply_temperature(table, temperature)))  # fmt: skip
    assert after < 0.03
    assert after <= before + 0.005


def test_bins_have_equal_size_and_hold_all_predictions():
    table, truths = made(103)
    bins = calibration.reliability(table, truths)
    assert sum(one.n for one in bins) == 103
    assert max(one.n for one in bins) - min(one.n for one in bins) <= 1
    assert [one.confidence for one in bins] == sorted(one.confidence for one in bins)
    assert len(calibration.reliability(table[:4], truths[:4])) == 4


def test_brier_score_equals_scikit_learn():
    table, truths = made(200)
    expected = sum(brier_score_loss(truths == place, np.exp(table[:, place])) for place in range(14))
    assert calibration.brier_score(table, truths) == pytest.approx(expected)


def test_risk_is_of_covered_predictions_and_ends_at_full_coverage():
    table, truths = made(300)
    points = calibration.risk_coverage(table, truths)
    assert points[-1].coverage == 1
    assert points[-1].risk == pytest.approx((table.argmax(1) != truths).mean())
    confidence = np.exp(table.max(1))
    for point in points[::37]:
        answered = confidence >= point.threshold
        assert point.coverage == pytest.approx(answered.mean())
        assert point.risk == pytest.approx((table.argmax(1) != truths)[answered].mean())
    assert 0 < calibration.aurc(points) < points[-1].risk


def test_perfect_ranking_has_the_smallest_aurc():
    table, _ = made(100)
    best = table.argmax(1)
    order = np.argsort(-table.max(1))
    wrong_last, wrong_first = best.copy(), best.copy()
    wrong_last[order[-20:]] = (best[order[-20:]] + 1) % 14
    wrong_first[order[:20]] = (best[order[:20]] + 1) % 14
    areas = [calibration.aurc(calibration.risk_coverage(table, one)) for one in (wrong_last, wrong_first)]
    assert areas[0] < areas[1]


def test_aurc_is_the_mean_risk_of_the_most_confident_predictions():
    table, truths = made(150)
    order = np.argsort(-table.max(1))
    wrong = (table.argmax(1) != truths)[order]
    expected = np.mean([wrong[:k].mean() for k in range(1, 151)])
    assert calibration.aurc(calibration.risk_coverage(table, truths)) == pytest.approx(expected)
    best = np.sort(wrong)
    assert calibration.optimal_aurc(int((~wrong).sum()), 150) == pytest.approx(
        np.mean([best[:k].mean() for k in range(1, 151)])
    )


def test_equal_confidences_give_equal_metrics_in_any_order():
    """Saturated confidences: three levels, fifty answers each."""
    rng = np.random.default_rng(0)
    levels = np.repeat([0.4, 0.7, 0.999], 50)
    table = np.log(np.full((150, 14), 1 - levels[:, None]) / 13)
    table[:, 0] = np.log(levels)
    truths = np.where(rng.random(150) < levels, 0, 1)
    places = [
        np.arange(150),
        np.argsort(truths, kind="stable"),
        np.argsort(-truths, kind="stable"),
        rng.permutation(150),
    ]
    found = [calibration.reliability(table[some], truths[some]) for some in places]
    for other in found[1:]:
        assert [one.accuracy for one in other] == pytest.approx([one.accuracy for one in found[0]])
    curves = [calibration.risk_coverage(table[some], truths[some]) for some in places]
    assert curves[0] == curves[1] == curves[2] == curves[3]
    assert [point.coverage for point in curves[0]] == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize(("n_wrong", "n"), [(0, 30), (3, 40), (12, 12), (7, 8)])
def test_bound_equals_scipys_clopper_pearson(n_wrong, n):
    # A two-sided 90 % interval has 5 % above it.
    expected = stats.binomtest(n_wrong, n).proportion_ci(0.9, method="exact").high
    assert calibration.clopper_pearson_upper(n_wrong, n, 0.95) == pytest.approx(expected)


def of_products(n_products, rng):
    """Return three images per product with equal predictions, the least informative case of 3 n images."""
    truths = np.repeat(rng.integers(0, 14, n_products), 3)
    logits = np.repeat(3 * rng.normal(size=(n_products, 14)), 3, axis=0)
    logits[np.arange(len(truths)), truths] += 7
    return calibration.apply_temperature(logits, 1.0), truths


@pytest.mark.parametrize("alike", [False, True], ids=["independent images", "equal predictions per product"])
def test_threshold_exceeds_its_risk_in_at_most_one_of_twenty_trials(alike):
    """Chosen on 300 images for a wanted risk, the true risk exceeds it in at most one of twenty trials."""
    rng, broken, found = np.random.default_rng(1), 0, 0
    population, truths = of_products(7000, rng) if alike else made(20_000, seed=9, scale=4.0)
    confidence, right = calibration.top1(population, truths)
    wanted = 0.2 if alike else 0.3
    for _ in range(80):
        some = (
            (3 * rng.choice(7000, 100, replace=False)[:, None] + np.arange(3)).ravel()
            if alike
            else rng.choice(len(truths), 300, replace=False)
        )
        point = calibration.threshold_for_risk(confidence[some], right[some], wanted)
        if point:
            found += 1
            assert point.risk <= point.bound <= wanted
            broken += (~right[confidence >= point.threshold]).mean() > wanted
    assert found >= 40
    assert broken <= 5


def test_no_threshold_is_returned_without_a_qualifying_one():
    confidence, right = np.linspace(0.1, 0.9, 30), np.zeros(30, dtype=bool)
    assert calibration.threshold_for_risk(confidence, right, 0.1) is None
    assert calibration.threshold_for_risk(confidence[:3], ~right[:3], 0.01) is None
    assert calibration.threshold_for_risk(confidence[:0], right[:0], 0.5) is None


def test_probabilities_are_normalised_and_must_be_finite():
    one = prediction("1_1", "Oil", "Oil", log_probabilities=tuple(np.full(14, -7.0)))
    table, truths = calibration.as_arrays([one], skincare_labels())
    assert np.exp(table).sum() == pytest.approx(1)
    assert truths.tolist() == [13]
    with pytest.raises(StageError, match="not finite"):
        calibration.as_arrays(
            [prediction("1_1", "Oil", "Oil", log_probabilities=(float("-inf"), *[-1.0] * 13))], skincare_labels()
        )


def test_predictions_without_probabilities_are_an_error():
    with pytest.raises(StageError, match="--decoder rank"):
        calibration.as_arrays([prediction("1_1", "Oil", "Oil")], skincare_labels())


@pytest.mark.parametrize(("truth_of", "expected"), [(lambda likeliest: likeliest, 0.05), (lambda one: one - 1, 20.0)])
def test_temperature_is_bounded_where_all_or_no_predictions_are_correct(truth_of, expected):
    likeliest = np.arange(140) % 14
    table = calibration.apply_temperature(np.eye(14)[likeliest], 1.0)
    assert calibration.fit_temperature(table, truth_of(likeliest) % 14) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_threshold_is_the_lowest_of_ten_whose_corrected_bound_reaches_the_target(level):
    confidence = np.linspace(0.995, 0.005, 100)
    right = np.arange(100) < 75
    for wanted in (0.05, 0.1, 0.2, 0.3):
        bounds = {
            n: stats.binomtest(max(0, n - 75), n).proportion_ci(1 - 2 * (1 - level) / 10, method="exact").high
            for n in range(10, 101, 10)
        }
        n = max((n for n, bound in bounds.items() if bound <= wanted), default=None)
        found = calibration.threshold_for_risk(confidence, right, wanted, level)
        if n is None:
            assert found is None
        else:
            assert found.threshold == confidence[n - 1]
            assert (found.coverage, found.risk) == (n / 100, max(0, n - 75) / n)
            assert found.bound == pytest.approx(bounds[n])
    assert calibration.threshold_for_risk(confidence, right, 1.0, level).coverage == 1


def test_predictions_of_equal_confidence_share_their_mean_accuracy():
    table = np.log(np.tile([0.6, 0.4], (4, 1)))
    (found,) = calibration.reliability(table, np.array([0, 0, 0, 1]), n_bins=1)
    assert (found.n, found.accuracy) == (4, 0.75)
    assert found.confidence == pytest.approx(0.6)
