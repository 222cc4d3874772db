"""Epoch orders are functions of seed and epoch; sampling and weights against class imbalance."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from skincare.dataset import chat
from skincare.labels import skincare_labels
from skincare.training import sampling

CATEGORIES = ["Oil"] * 60 + ["Balm"] * 30 + ["Peel"] * 4
EXAMPLES = [
    chat.example(f"clean_dataset/images/a_{i}_1.jpg", category, skincare_labels())
    for i, category in enumerate(CATEGORIES)
]


@pytest.mark.parametrize("imbalance", ["none", "class_balanced", "focal"])
def test_each_epoch_is_another_permutation_of_the_images(imbalance):
    orders = [sampling.epoch_order(CATEGORIES, imbalance, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(94)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert sampling.epoch_order(CATEGORIES, imbalance, 1, 1) == orders[3]


def test_the_balanced_sampler_draws_categories_equally_often():
    drawn = Counter(
        CATEGORIES[i] for epoch in range(60) for i in sampling.epoch_order(CATEGORIES, "balanced_sampler", 0, epoch)
    )
    assert all(n == pytest.approx(60 * 94 / 3, rel=0.06) for n in drawn.values())


def test_weights_increase_with_rarity_and_average_to_one():
    weights = sampling.category_weights(CATEGORIES)
    assert weights["Peel"] > weights["Balm"] > weights["Oil"]
    assert sum(weights[one] for one in CATEGORIES) / len(CATEGORIES) == pytest.approx(1)
    # Weaker than by frequency, which is the limit of beta = 1.
    balanced = compute_class_weight("balanced", classes=np.array(["Oil", "Peel"]), y=CATEGORIES[:60] + CATEGORIES[-4:])
    assert weights["Peel"] / weights["Oil"] < balanced[1] / balanced[0]


def test_weights_follow_the_effective_number_of_images():
    """Of Cui et al. 2019, with their beta of 0.99: (1 - 0.99^n) / (1 - 0.99)."""
    weights, n_effective = sampling.category_weights(CATEGORIES), {"Oil": 1 - 0.99**60, "Peel": 1 - 0.99**4}
    assert weights["Peel"] / weights["Oil"] == pytest.approx(n_effective["Oil"] / n_effective["Peel"])


def test_equal_categories_have_equal_weights():
    assert sampling.category_weights(["Oil", "Balm"] * 9) == pytest.approx({"Oil": 1, "Balm": 1})


def test_the_focal_loss_reduces_the_loss_of_likely_answers():
    losses = torch.tensor([0.01, 0.7, 4.0])
    damped = sampling.focal_losses(losses) / losses
    assert damped[0] < 1e-3
    assert damped[1] == pytest.approx((1 - 2.718281828**-0.7) ** 2, rel=1e-5)
    assert damped[2] > 0.95


def test_a_subsample_keeps_the_proportions_of_the_categories():
    part = sampling.subsample(EXAMPLES, 0.25, seed=0)
    assert Counter(one.category for one in part) == {"Oil": 15, "Balm": 8, "Peel": 1}
    assert part == [one for one in EXAMPLES if one in part]
    assert sampling.subsample(EXAMPLES, 0.25, seed=0) == part != sampling.subsample(EXAMPLES, 0.25, seed=1)
    assert sampling.subsample(EXAMPLES, 1.0, seed=0) == EXAMPLES


def test_epoch_orders_stay_the_same_between_versions():
    """A run that an older version began resumes with the same order."""
    generator = torch.Generator().manual_seed(2 * 1_000_003 + 3)
    assert sampling.epoch_order(CATEGORIES, "none", 2, 3) == torch.randperm(94, generator=generator).tolist()


@pytest.mark.parametrize("dropout", [0.0, 0.25, 1.0])
def test_hints_are_dropped_with_the_given_probability(dropout):
    kept = [sampling.keeps_hint(dropout, 0, 1, f"{i}_1") for i in range(4000)]
    assert np.mean(kept) == pytest.approx(1 - dropout, abs=0.03 if 0 < dropout < 1 else 0)
    assert kept == [sampling.keeps_hint(dropout, 0, 1, f"{i}_1") for i in range(4000)]
    if 0 < dropout < 1:
        assert kept != [sampling.keeps_hint(dropout, 0, 2, f"{i}_1") for i in range(4000)]
