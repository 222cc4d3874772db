"""The scores are scikit-learn's and scipy's; intervals cover what they promise."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from skincare import metrics, reference
from skincare.categories import CATEGORIES, UNKNOWN
from skincare.errors import StageError
from tests.helpers import prediction

rng = random.Random(5)
# Like a bad model: five categories are never seen, one in six answers names nothing.
SEEN = CATEGORIES[:9]
RANDOM = [
    prediction(f"{i % 37}_{i}", rng.choice(SEEN), rng.choice([*CATEGORIES, None, None, SEEN[i % 9]]))
    for i in range(300)
]
CASES = {
    "random": RANDOM,
    "perfect": [prediction(f"{i}_1", c, c) for i, c in enumerate(CATEGORIES)],
    "silent": [prediction(f"{i}_1", c, None) for i, c in enumerate(CATEGORIES)],
    "one picture": [prediction("1_1", "Oil", "Balm")],
}


@pytest.mark.parametrize("predictions", CASES.values(), ids=CASES)
def test_scores_are_scikit_learns(predictions):
    truth = [one.truth for one in predictions]
    answers = [one.category or UNKNOWN for one in predictions]
    scores = metrics.score(predictions)
    seen = sorted(set(truth))
    for average in ("weighted", "macro"):
        expected = sklearn_metrics.precision_recall_fscore_support(
            truth, answers, labels=seen, average=average, zero_division=0
        )[:3]
        found = [getattr(scores, f"{name}_{average}") for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected)
    assert scores.accuracy == pytest.approx(sklearn_metrics.accuracy_score(truth, answers))
    assert scores.recall_weighted == pytest.approx(scores.accuracy)
    expected = sklearn_metrics.confusion_matrix(truth, answers, labels=[*CATEGORIES, UNKNOWN])[:-1]
    assert np.array_equal(scores.confusion, expected)


def test_coverage_and_selective_accuracy_share_the_accuracy():
    scores = metrics.score(RANDOM)
    assert scores.coverage * scores.selective_accuracy == pytest.approx(scores.accuracy)
    assert scores.accuracy <= scores.parent_accuracy <= scores.coverage
    assert sum(category.n for category in scores.categories) == sum(scores.statuses.values()) == 300


def test_the_order_of_predictions_changes_nothing():
    shuffled = random.Random(1).sample(RANDOM, len(RANDOM))
    assert metrics.score(shuffled) == metrics.score(RANDOM)


def test_scores_survive_json():
    scores = metrics.score(RANDOM)
    assert metrics.scores_from_json(json.loads(json.dumps(metrics.to_json(scores)))) == scores


def test_scores_of_another_version_say_so():
    with pytest.raises(StageError, match="run the stage again"):
        metrics.scores_from_json({"n": 1, "categories": [], "confusion": []})


def test_nothing_cannot_be_scored():
    with pytest.raises(StageError, match="no predictions"):
        metrics.score([])


def test_the_published_intervals_are_wilsons():
    for published, n_right in ((reference.BEFORE, 60), (reference.AFTER, 102)):
        low, high = metrics.wilson_interval(n_right, reference.N_TEST)
        assert (low, high) == pytest.approx((published["accuracy_low"], published["accuracy_high"]), abs=5e-4)
        expected = stats.binomtest(n_right, reference.N_TEST).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_interval_of_independent_pictures_is_near_wilsons():
    right = [i < 90 for i in range(200)]
    low, high = metrics.clustered_interval(right, [str(i) for i in range(200)], 0, 4000)
    assert (low, high) == pytest.approx(metrics.wilson_interval(90, 200), abs=0.02)


def test_pictures_of_one_product_count_little_more_than_once():
    """Ten equal pictures of each of 20 products tell what 20 pictures tell."""
    clusters = [str(i // 10) for i in range(200)]
    right = [(i // 10) % 2 == 0 for i in range(200)]
    low, high = metrics.clustered_interval(right, clusters, 0, 4000)
    alone = metrics.clustered_interval(right, [str(i) for i in range(200)], 0, 4000)
    assert high - low > 2.5 * (alone[1] - alone[0])


def test_no_right_answer_still_has_an_interval():
    low, high = metrics.accuracy_interval([False] * 40, [str(i // 4) for i in range(40)], 0, 100)
    assert (low, high) == pytest.approx(metrics.wilson_interval(0, 10))
    assert metrics.accuracy_interval([True] * 3, list("abc"), 0, 100)[1] == pytest.approx(1)


@pytest.mark.slow
def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    """Products with an accuracy of their own around 0.6: the truth lies inside for 91 to 98 % of 300 data sets."""
    generator = np.random.default_rng(3)
    inside = 0
    for seed in range(300):
        of_product = generator.beta(3, 2, size=60)
        sizes = generator.integers(1, 6, size=60)
        right = [generator.random() < p for p, n in zip(of_product, sizes, strict=True) for _ in range(n)]
        clusters = [str(i) for i, n in enumerate(sizes) for _ in range(n)]
        low, high = metrics.clustered_interval(right, clusters, seed, 1000)
        inside += low <= 0.6 <= high
    assert 0.91 <= inside / 300 <= 0.98


def test_mcnemar_is_the_exact_binomial_test():
    truth = "Oil"
    before = [prediction(f"{i}_1", truth, "Oil" if i < 12 else "Balm") for i in range(40)]
    after = [prediction(f"{i}_1", truth, "Oil" if 5 <= i < 30 else "Balm") for i in range(40)]
    found = metrics.compare(before, after)
    assert (found.n_only_before_right, found.n_only_after_right) == (5, 18)
    assert found.mcnemar_p == pytest.approx(stats.binomtest(5, 23, 0.5).pvalue)
    assert found.difference == pytest.approx(13 / 40)
    assert found.difference_low < 13 / 40 < found.difference_high


def test_equal_models_do_not_differ():
    found = metrics.compare(RANDOM, RANDOM)
    assert (found.difference, found.difference_low, found.difference_high, found.mcnemar_p) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    "after", [RANDOM[1:], [replace(RANDOM[0], truth="Peel"), *RANDOM[1:]]], ids=["one missing", "another truth"]
)
def test_other_pictures_cannot_be_compared(after):
    assert RANDOM[0].truth != "Peel"
    with pytest.raises(StageError, match="same pictures"):
        metrics.compare(RANDOM, after)


def test_the_detectable_difference_has_the_promised_power():
    """Simulated: a true difference of that size is found by McNemar's test about four times in five."""
    n, discordant = 300, 0.4
    d = metrics.smallest_detectable_difference(n, discordant)
    generator = np.random.default_rng(0)
    draws = generator.multinomial(n, [(discordant + d) / 2, (discordant - d) / 2, 1 - discordant], size=400)
    found = [stats.binomtest(int(b), int(b + c)).pvalue < 0.05 for b, c, _ in draws]
    assert 0.7 < np.mean(found) < 0.88


def test_the_reference_could_show_differences_of_ten_points():
    assert metrics.smallest_detectable_difference(204, 0.25) == pytest.approx(0.098, abs=0.003)
