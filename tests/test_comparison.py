"""Paired comparisons equal statsmodels and explicit samples, and require the same images."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from skincare.errors import StageError
from skincare.evaluation import comparison, intervals, merging, metrics
from skincare.inference import predictions
from skincare.labels import skincare_labels
from skincare.paths import Layout
from tests.helpers import prediction

CATEGORIES = skincare_labels().names

rng = random.Random(7)
TRUTHS = [rng.choice(CATEGORIES[:8]) for _ in range(200)]
IDS = [f"{i % 41}_{i}" for i in range(200)]


def answers(skill, seed):
    own = random.Random(seed)
    return [
        prediction(i, truth, truth if own.random() < skill else own.choice([*CATEGORIES, None]))
        for i, truth in zip(IDS, TRUTHS, strict=True)
    ]


BEFORE, AFTER = answers(0.4, 1), answers(0.6, 2)


def test_p_value_equals_statsmodels():
    found = comparison.compare(BEFORE, AFTER)
    was, now = ([one.category == one.truth for one in part] for part in (BEFORE, AFTER))
    table = [[sum(a == x and b == y for a, b in zip(was, now, strict=True)) for y in (True, False)]
             for x in (True, False)]  # fmt: skip
    assert found.mcnemar_p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert (found.n_only_before_right, found.n_only_after_right) == (table[0][1], table[1][0])
    assert found.difference == pytest.approx(np.mean(now) - np.mean(was))


def test_differences_equal_those_of_the_scores():
    found, first, second = (
        comparison.compare(BEFORE, AFTER),
        metrics.score(BEFORE, skincare_labels()),
        metrics.score(AFTER, skincare_labels()),
    )
    assert found.accuracy_before == pytest.approx(first.accuracy)
    assert found.f1_macro_after == pytest.approx(second.f1_macro)
    assert found.f1_macro_difference == pytest.approx(second.f1_macro - first.f1_macro)


def test_intervals_equal_explicit_samples():
    """The same products for both models in every draw; scored image by image."""
    found = comparison.compare(BEFORE, AFTER, seed=5, n_resamples=60)
    products = sorted({one.product_id for one in BEFORE})
    differences = []
    for times in intervals.draw_products(len(products), 5, 60).astype(int):
        n_of = dict(zip(products, times, strict=True))
        drawn = [[one for one in part for _ in range(n_of[one.product_id])] for part in (BEFORE, AFTER)]
        confusions = [metrics.confusion_by_product(part, CATEGORIES).sum(axis=0) for part in drawn]
        accuracy = [np.trace(one) / one.sum() for one in confusions]
        f1 = [metrics.macro_f1(one) for one in confusions]
        differences.append([accuracy[1] - accuracy[0], f1[1] - f1[0]])
    accuracy, f1 = np.array(differences).T
    assert (found.difference_low, found.difference_high) == pytest.approx(intervals.percentile_interval(accuracy, 41))
    expected = intervals.percentile_interval(f1, 41)
    assert (found.f1_macro_difference_low, found.f1_macro_difference_high) == pytest.approx(expected)


def test_equal_models_do_not_differ():
    found = comparison.compare(BEFORE, BEFORE)
    assert (found.difference, found.difference_low, found.difference_high) == (0, 0, 0)
    assert (found.mcnemar_p, found.products_p) == (1, 1)
    assert found.smallest_detectable_difference_products >= found.smallest_detectable_difference > 0


def test_swapped_models_have_the_negative_difference_in_any_order():
    there, back = comparison.compare(BEFORE, AFTER), comparison.compare(AFTER, BEFORE)
    assert (there.difference_low, there.difference_high) == pytest.approx((-back.difference_high, -back.difference_low))
    assert there.products_p == back.products_p
    assert comparison.compare(BEFORE[::-1], random.Random(0).sample(AFTER, 200)) == there


def test_correlated_changes_within_products_are_weaker_evidence():
    """Ten images of each of 4 products got right at last: 40 images, but only 4 witnesses."""
    before = [prediction(f"{i // 10}_{i}", "Oil", "Oil" if i >= 40 else None) for i in range(200)]
    after = [prediction(f"{i // 10}_{i}", "Oil", "Oil") for i in range(200)]
    found = comparison.compare(before, after)
    assert found.mcnemar_p < 1e-10
    assert found.products_p == pytest.approx(2 / 2**4, abs=0.02)
    assert found.smallest_detectable_difference_products > 2 * found.smallest_detectable_difference


def test_merged_predictions_are_compared_as_merged():
    groups = merging.parse(["Toner+Mist", "Oil+Bath Oil"], skincare_labels())
    found = comparison.compare(
        merging.merge(BEFORE, groups, skincare_labels()), merging.merge(AFTER, groups, skincare_labels())
    )
    assert found.f1_macro_after == pytest.approx(metrics.score(AFTER, skincare_labels(), merged=groups).f1_macro)


@pytest.mark.parametrize(
    "after",
    [
        AFTER[1:],
        [*AFTER, AFTER[0]],
        [replace(AFTER[0], truth="Peel"), *AFTER[1:]],
        [replace(AFTER[0], product_id="another"), *AFTER[1:]],
    ],
    ids=["one missing", "one twice", "another truth", "another product"],
)
def test_other_images_cannot_be_compared(after):
    assert AFTER[0].truth != "Peel"
    with pytest.raises(StageError, match=r"(same images|several predictions)"):
        comparison.compare(BEFORE, after)
    with pytest.raises(StageError, match="same images"):
        comparison.compare([], [])
    assert not comparison.have_same_images(BEFORE, after) or len(after) > len(AFTER)


def test_products_are_counted_and_both_macro_f1_are_reported():
    found = comparison.compare(BEFORE, AFTER, n_resamples=20)
    assert (found.n, found.n_products) == (200, 41)
    assert found.f1_macro_before == pytest.approx(metrics.score(BEFORE, skincare_labels()).f1_macro)


@pytest.fixture
def run_log(tmp_path):
    """Return the log folder of a run with test predictions, and a baseline of the same images."""
    layout = Layout(tmp_path)
    predictions.write_jsonl(layout.finetune_log("run") / "test_predictions.jsonl", AFTER)
    predictions.write_jsonl(layout.baselines / "name.jsonl", BEFORE)
    return layout.finetune_log("run")


def test_baselines_of_the_same_images_are_compared_with_the_trained_model(tmp_path, run_log):
    predictions.write_jsonl(Layout(tmp_path).baselines / "name_folds.jsonl", BEFORE[1:])
    comparison.compare_with_baselines(Layout(tmp_path), run_log)
    found = json.loads((run_log / "baselines.json").read_text())
    assert found == {"name": metrics.to_json(comparison.compare(BEFORE, AFTER))}


def test_run_without_test_predictions_gets_no_comparison(tmp_path, run_log):
    (run_log / "test_predictions.jsonl").unlink()
    comparison.compare_with_baselines(Layout(tmp_path), run_log)
    assert not (run_log / "baselines.json").exists()


def test_comparison_is_kept_if_all_baselines_are_of_a_later_dataset(tmp_path, run_log):
    comparison.compare_with_baselines(Layout(tmp_path), run_log)
    kept = (run_log / "baselines.json").read_text()
    predictions.write_jsonl(Layout(tmp_path).baselines / "name.jsonl", BEFORE[1:])
    comparison.compare_with_baselines(Layout(tmp_path), run_log)
    assert (run_log / "baselines.json").read_text() == kept
    (run_log / "baselines.json").unlink()
    comparison.compare_with_baselines(Layout(tmp_path), run_log)
    assert json.loads((run_log / "baselines.json").read_text()) == {}
