"""Scores equal scikit-learn's; intervals equal those of explicit samples of products."""

import json
import random
from collections import defaultdict

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from skincare import reference_experiment
from skincare.errors import StageError
from skincare.evaluation import intervals, metrics
from skincare.labels import UNKNOWN, skincare_labels
from tests.helpers import prediction

CATEGORIES = skincare_labels().names

rng = random.Random(5)
# Like a bad model: five categories are never seen, one in six answers names nothing.
SEEN = CATEGORIES[:9]
RANDOM = [
    prediction(f"{i % 37}_{i}", rng.choice(SEEN), rng.choice([*CATEGORIES, None, None, SEEN[i % 9]]))
    for i in range(300)
]
FAIR = [
    prediction(f"{i % 150}_{i}", truth, rng.choice([truth, truth, *SEEN[:3], None]))
    for i in range(450)
    for truth in [SEEN[i % 150 % 9]]
]
CASES = {
    "random": RANDOM,
    "fair": FAIR,
    "perfect": [prediction(f"{i}_1", c, c) for i, c in enumerate(CATEGORIES)],
    "silent": [prediction(f"{i}_1", c, None) for i, c in enumerate(CATEGORIES)],
    "one image": [prediction("1_1", "Oil", "Balm")],
}


@pytest.mark.parametrize("predictions", CASES.values(), ids=CASES)
def test_scores_equal_scikit_learn(predictions):
    truth = [one.truth for one in predictions]
    answers = [one.category or UNKNOWN for one in predictions]
    scores = metrics.score(predictions, skincare_labels())
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


def test_accuracy_is_coverage_times_selective_accuracy():
    scores = metrics.score(RANDOM, skincare_labels())
    assert scores.coverage * scores.selective_accuracy == pytest.approx(scores.accuracy)
    assert scores.accuracy <= scores.parent_accuracy <= scores.coverage
    assert sum(category.n for category in scores.categories) == sum(scores.statuses.values()) == 300


def test_scores_do_not_depend_on_the_order():
    shuffled = random.Random(1).sample(RANDOM, len(RANDOM))
    assert metrics.score(shuffled, skincare_labels()) == metrics.score(RANDOM, skincare_labels())


def test_scores_round_trip_through_json():
    scores = metrics.score(RANDOM, skincare_labels())
    assert metrics.scores_from_json(json.loads(json.dumps(metrics.to_json(scores)))) == scores


def test_scores_of_another_version_are_an_error():
    with pytest.raises(StageError, match="run the stage again"):
        metrics.scores_from_json({"n": 1, "categories": [], "confusion": []})


def test_no_predictions_are_an_error():
    with pytest.raises(StageError, match="no predictions"):
        metrics.score([], skincare_labels())


def drawn_f1(predictions, seed, n_resamples):
    """Macro F1 as scikit-learn has it, of samples of products written out image by image."""
    products = sorted({one.product_id for one in predictions})
    for times in intervals.draw_products(len(products), seed, n_resamples).astype(int):
        some = [one for product, n in zip(products, times, strict=True) for one in n * by_product(predictions)[product]]
        truth = [one.truth for one in some]
        answers = [one.category or UNKNOWN for one in some]
        yield sklearn_metrics.f1_score(truth, answers, labels=sorted(set(truth)), average="macro", zero_division=0)


def by_product(predictions):
    found = defaultdict(list)
    for one in predictions:
        found[one.product_id].append(one)
    return found


def test_macro_f1_interval_equals_explicit_samples():
    scores = metrics.score(RANDOM, skincare_labels(), seed=3, n_resamples=80)
    expected = intervals.percentile_interval(np.array(list(drawn_f1(RANDOM, 3, 80))), 37)
    assert (scores.f1_macro_low, scores.f1_macro_high) == pytest.approx(expected)
    assert scores.f1_macro_low < scores.f1_macro < scores.f1_macro_high


@pytest.mark.parametrize("name", ["accuracy", "coverage", "selective_accuracy", "f1_macro", "parent_accuracy"])
def test_values_are_inside_their_intervals(name):
    for predictions in CASES.values():
        scores = metrics.score(predictions, skincare_labels())
        low, high = getattr(scores, f"{name}_low"), getattr(scores, f"{name}_high")
        assert 0 <= low <= getattr(scores, name) <= high + 1e-12
        assert high - low > 0.02


def test_category_interval_is_of_its_own_images():
    """Recall and precision: the accuracy of the images shown and of those answered so, their products drawn alone."""
    scores = metrics.score(FAIR, skincare_labels())
    for one in scores.categories[:3]:
        for kind, chosen in (("recall", "truth"), ("precision", "category")):
            alone = metrics.score([p for p in FAIR if getattr(p, chosen) == one.category], skincare_labels())
            assert getattr(one, kind) == pytest.approx(alone.accuracy)
            expected = (alone.accuracy_low, alone.accuracy_high)
            assert getattr(one, f"{kind}_interval") == pytest.approx(expected, abs=0.03)
        assert one.f1_interval[0] < one.f1 < one.f1_interval[1]


def test_absent_category_has_no_interval():
    only_oil = metrics.score([prediction(f"{i}_1", "Oil", "Oil") for i in range(5)], skincare_labels())
    peel, oil = only_oil.categories[CATEGORIES.index("Peel")], only_oil.categories[CATEGORIES.index("Oil")]
    assert (peel.precision_interval, peel.recall_interval, peel.f1_interval) == (None, None, None)
    # Five products, all right: Wilson's share, turned into F1.
    low, _ = intervals.wilson_interval(5, 5)
    assert oil.recall_interval == pytest.approx((low, 1))
    assert oil.f1_interval == pytest.approx((2 * low / (1 + low), 1))


def test_distance_of_wrong_predictions():
    answers = {"Oil": 0, "Balm": 1, "Serum": 2, "Mask": 2}
    some = [prediction(f"{i}_1", "Oil", name) for i, name in enumerate([*answers, None])]
    scores = metrics.score(some, skincare_labels())
    assert scores.hierarchical_distance == pytest.approx(sum(answers.values()) / 4)
    assert scores.errors_in_family == pytest.approx(1 / 3)
    assert scores.parent_accuracy == pytest.approx(2 / 5)
    assert metrics.score(CASES["perfect"], skincare_labels()).errors_in_family is None


def test_merged_categories_count_as_one():
    mixed = [*RANDOM, prediction("900_1", "Toner", "Mist"), prediction("901_1", "Mist", "Toner")]
    scores = metrics.score(mixed, skincare_labels(), merged=(("Toner", "Mist"),))
    assert [one.category for one in scores.categories][8] == "Toner + Mist"
    names = {"Toner": "Toner + Mist", "Mist": "Toner + Mist"}
    truth = [names.get(one.truth, one.truth) for one in mixed]
    answers = [names.get(one.category, one.category) or UNKNOWN for one in mixed]
    assert scores.accuracy == pytest.approx(sklearn_metrics.accuracy_score(truth, answers))
    expected = sklearn_metrics.f1_score(truth, answers, labels=sorted(set(truth)), average="macro", zero_division=0)
    assert scores.f1_macro == pytest.approx(expected)
    plain = metrics.score(mixed, skincare_labels())
    assert scores.accuracy > plain.accuracy
    assert scores.parent_accuracy == plain.parent_accuracy


def test_published_intervals_are_wilsons():
    for published, n_right in ((reference_experiment.BEFORE, 60), (reference_experiment.AFTER, 102)):
        interval = intervals.wilson_interval(n_right, reference_experiment.N_TEST)
        assert interval == pytest.approx((published["accuracy_low"], published["accuracy_high"]), abs=5e-4)


def test_predictions_of_the_last_category_are_covered():
    scores = metrics.score([prediction("1_1", CATEGORIES[-1], CATEGORIES[-1])], skincare_labels())
    assert (scores.n, scores.accuracy, scores.coverage, scores.selective_accuracy) == (1, 1.0, 1.0, 1.0)
