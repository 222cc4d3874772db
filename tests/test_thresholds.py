"""What a threshold is worth follows from the marks alone, in both directions; few marks propose nothing."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, precision_score, recall_score

from skincare.cleaning import thresholds
from skincare.cleaning.thresholds import Marked


def marked(n=80, middle=50.0, sign=1.0, seed=0):
    """Images whose chance to be good rises with the value (sign 1) or falls with it."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 100, n)
    is_good = rng.random(n) < 1 / (1 + np.exp(-sign * (values - middle) / 4))
    return [
        Marked(round(float(v), 3), bool(g), f"p{i // 2}") for i, (v, g) in enumerate(zip(values, is_good, strict=True))
    ]


@pytest.mark.parametrize("is_least", [True, False])
def test_shares_are_those_of_scikit_learn(is_least):
    marks = marked(sign=1 if is_least else -1)
    truth = [not one.is_good for one in marks]
    rejected = [one.value < 40 if is_least else one.value > 40 for one in marks]
    found = thresholds.at_threshold(marks, 40, is_least=is_least)
    assert found.n_rejected == sum(rejected)
    assert found.precision == pytest.approx(precision_score(truth, rejected))
    assert found.recall == pytest.approx(recall_score(truth, rejected))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, rejected))
    for value, (low, high) in ((found.precision, found.precision_interval), (found.recall, found.recall_interval)):
        assert low <= value <= high
        assert low < high


@pytest.mark.parametrize("is_least", [True, False])
def test_the_proposal_is_the_best_of_all_thresholds_and_its_interval_holds_the_truth(is_least):
    marks = marked(300, middle=62, sign=1 if is_least else -1)
    found = thresholds.propose(marks, 30, is_least=is_least)
    best = thresholds.at_threshold(marks, found.threshold, is_least=is_least).balanced_accuracy
    others = [thresholds.at_threshold(marks, value, is_least=is_least).balanced_accuracy for value in range(2, 99, 3)]
    assert best >= max(others)
    assert found.low <= 62 <= found.high
    assert found.low <= found.threshold <= found.high


@pytest.mark.parametrize("is_least", [True, False])
def test_a_wanted_share_of_good_ones_is_kept_by_the_strictest_threshold(is_least):
    marks = marked(200, sign=1 if is_least else -1)
    found = thresholds.propose(marks, 50, is_least=is_least, keep_good=0.9)
    assert thresholds.at_threshold(marks, found.threshold, is_least=is_least).kept_good >= 0.9
    beyond = sorted((one.value for one in marks if one.is_good), reverse=not is_least)
    stricter = next(v for v in beyond if (v > found.threshold if is_least else v < found.threshold))
    stricter += 1e-6 if is_least else -1e-6
    assert thresholds.at_threshold(marks, stricter, is_least=is_least).kept_good < 0.9


def test_a_threshold_that_is_already_best_stays():
    marks = [Marked(float(v), v >= 50, f"p{v}") for v in range(100)]
    assert thresholds.propose(marks, 49.5, is_least=True).threshold == 49.5


@pytest.mark.parametrize(
    ("n_good", "n_bad", "reason"), [(30, 9, "too few"), (0, 40, "one-sided"), (40, 0, "one-sided"), (10, 10, "")]
)
def test_few_or_one_sided_marks_propose_nothing(n_good, n_bad, reason):
    marks = [Marked(float(i), i < n_good, f"p{i}") for i in range(n_good + n_bad)]
    found = thresholds.why_no_proposal(marks)
    assert bool(found) == bool(reason)
    assert reason in found


def test_shares_of_nothing_are_none():
    found = thresholds.at_threshold([Marked(5.0, True, "p")], 1.0, is_least=True)
    assert (found.precision, found.recall, found.balanced_accuracy, found.kept_good) == (None, None, None, 1.0)


@pytest.mark.parametrize("is_least", [True, False])
def test_a_value_equal_to_the_threshold_passes(is_least):
    found = thresholds.at_threshold([Marked(40.0, True, "a"), Marked(41.0, False, "b")], 40, is_least=is_least)
    assert found.threshold == 40
    assert found.n_rejected == (0 if is_least else 1)
    assert found.kept_good == 1
