"""A family's probability is the sum of its members'; back-off keeps its guarantee and covers more."""

import numpy as np
import pytest

from skincare.evaluation import calibration, hierarchy
from skincare.labels import skincare_labels
from tests.test_calibration import of_products

CATEGORIES = skincare_labels().names


def row(**shares):
    """Log-probabilities; what is not given is spread over the rest."""
    rest = (1 - sum(shares.values())) / (14 - len(shares))
    return np.log([shares.get(name.replace(" ", "_"), rest) for name in CATEGORIES])


def test_family_has_the_sum_of_its_members():
    table = np.log(np.random.default_rng(0).dirichlet(np.ones(14), size=20))
    families = np.exp(hierarchy.family_table(table, skincare_labels()))
    assert families.sum(axis=1) == pytest.approx(1)
    for i, members in enumerate(dict(skincare_labels().families).values()):
        expected = np.exp(table[:, [CATEGORIES.index(name) for name in members]]).sum(axis=1)
        assert families[:, i] == pytest.approx(expected)


def test_category_precedes_family_precedes_abstention():
    table = np.stack([row(Serum=0.9), row(Cleanser=0.45, Toner=0.45), row(Serum=0.3, Oil=0.3)])
    category, family = hierarchy.apply(hierarchy.Policy(0.8, 0.8), table, skincare_labels())
    assert category.tolist() == [True, False, False]
    assert family.tolist() == [False, True, False]
    for silent in hierarchy.apply(hierarchy.Policy(None, None), table, skincare_labels()):
        assert not silent.any()


def test_most_likely_family_may_lack_the_most_likely_category():
    """Oil is likeliest alone, but Cleanser and Toner together are likelier than all oils."""
    table = np.stack([row(Oil=0.35, Cleanser=0.3, Toner=0.3)])
    truths = np.array([CATEGORIES.index("Toner")])
    found = hierarchy.summarise((table, truths), (table, truths), (0.5,), skincare_labels(), ["1"])
    assert (found["accuracy"], found["family_of_category"], found["family_accuracy"]) == (0, 0, 1)


def of_near_products(n_products, rng):
    """Products whose family is plainer than their category."""
    table, truths = of_products(n_products, rng)
    family_of = hierarchy.families_of(np.arange(14), skincare_labels())
    table = table + 5 * (family_of == hierarchy.families_of(truths, skincare_labels())[:, None])
    table[np.arange(len(truths)), truths] -= 5
    return calibration.apply_temperature(table, 1.0), truths


def test_back_off_keeps_its_risk_and_covers_more():
    rng, broken = np.random.default_rng(2), 0
    table, truths = of_near_products(5000, rng)
    right = calibration.top1(table, truths)[1]
    family_right = calibration.top1(
        hierarchy.family_table(table, skincare_labels()), hierarchy.families_of(truths, skincare_labels())
    )[1]
    more = 0
    for _ in range(40):
        some = (3 * rng.choice(5000, 100, replace=False)[:, None] + np.arange(3)).ravel()
        policy = hierarchy.choose(table[some], truths[some], 0.2, skincare_labels())
        category, family = hierarchy.apply(policy, table, skincare_labels())
        more += family.mean() > 0.05
        risks = [(~kind[named]).mean() for kind, named in ((right, category), (family_right, family)) if named.any()]
        broken += any(risk > 0.2 for risk in risks)
    assert broken <= 4
    assert more >= 20


def test_shares_add_up_and_risk_is_of_covered_images():
    rng = np.random.default_rng(3)
    val, test = of_products(150, rng), of_products(100, rng)
    products = [str(i // 3) for i in range(len(test[1]))]
    for one in hierarchy.summarise(val, test, (0.2, 0.3), skincare_labels(), products)["policies"]:
        assert one["share_category"] + one["share_family"] + one["share_unanswered"] == pytest.approx(1)
        wrong = one["share_category"] * (1 - (one["accuracy_category"] or 0))
        wrong += one["share_family"] * (1 - (one["accuracy_family"] or 0))
        assert one["risk"] == pytest.approx(wrong / (1 - one["share_unanswered"]))


def test_family_threshold_is_chosen_on_images_without_a_category():
    """All images together would justify a family threshold, those without a category do not."""
    table, truths = of_products(100, np.random.default_rng(2))
    policy = hierarchy.choose(table, truths, 0.2, skincare_labels())
    assert policy.category_threshold == pytest.approx(0.854, abs=0.001)
    assert policy.family_threshold is None
    families = hierarchy.family_table(table, skincare_labels()), hierarchy.families_of(truths, skincare_labels())
    of_all = calibration.threshold_for_risk(*calibration.top1(*families), 0.2, confidence_level=0.975)
    assert of_all is not None


def test_risk_counts_wrong_categories_and_wrong_families():
    table = np.stack([row(Serum=0.9), row(Serum=0.9), row(Cleanser=0.45, Toner=0.45), row(Serum=0.3, Oil=0.3)])
    truths = np.array([CATEGORIES.index(name) for name in ("Serum", "Oil", "Mask", "Serum")])
    found = hierarchy._judged(hierarchy.Policy(0.8, 0.8), table, truths, skincare_labels(), list("1234"))
    assert found["risk"] == pytest.approx(2 / 3)
    assert (found["accuracy_category"], found["accuracy_family"]) == (0.5, 0.0)
