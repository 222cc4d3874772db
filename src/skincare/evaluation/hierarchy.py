"""Hierarchical back-off: predict the category, else its family, else abstain; pure functions.

Input as in `skincare.evaluation.calibration`: (n, k) log-probabilities and the indices of the true categories.
A family's probability is the sum of its members'. Both thresholds are chosen on val and applied to test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skincare.evaluation import intervals
from skincare.evaluation.calibration import ClassIndices, LogProbabilities, Mask, threshold_for_risk, top1
from skincare.labels import Labels


@dataclass(frozen=True)
class Policy:
    """Confidence thresholds of the category and of the family; None: never predicted."""

    category_threshold: float | None
    family_threshold: float | None


def family_table(log_probabilities: LogProbabilities, labels: Labels) -> LogProbabilities:
    """Return (n, families) log-probabilities, in the order of the families."""
    places = _family_places(labels)
    return np.stack(
        [np.logaddexp.reduce(log_probabilities[:, np.equal(places, i)], axis=1) for i in range(len(labels.families))],
        axis=1,
    )


def families_of(truths: ClassIndices, labels: Labels) -> ClassIndices:
    """Return (n,) the indices of the families of label indices."""
    return _family_places(labels)[truths]


def _family_places(labels: Labels) -> ClassIndices:
    """Return (n_labels,) the index of each label's family."""
    families = [family for family, _ in labels.families]
    return np.array([families.index(labels.family_of(name)) for name in labels.names])


def choose(log_probabilities: LogProbabilities, truths: ClassIndices, wanted_risk: float, labels: Labels) -> Policy:
    """Return the thresholds that bound the risk of both levels by `wanted_risk`.

    The family threshold is chosen on the images without a predicted category; each bound takes half of the 5 % error.
    """
    confidence, right = top1(log_probabilities, truths)
    category = threshold_for_risk(confidence, right, wanted_risk, confidence_level=0.975)
    rest = confidence < category.threshold if category else np.ones(len(right), dtype=bool)
    of_families = top1(family_table(log_probabilities, labels)[rest], families_of(truths, labels)[rest])
    family = threshold_for_risk(*of_families, wanted_risk, confidence_level=0.975)
    return Policy(category.threshold if category else None, family.threshold if family else None)


def apply(policy: Policy, log_probabilities: LogProbabilities, labels: Labels) -> tuple[Mask, Mask]:
    """Return two (n,) masks: the category is predicted; the family is predicted. Neither: abstention."""
    confidence, family_confidence = (
        np.exp(one.max(axis=1)) for one in (log_probabilities, family_table(log_probabilities, labels))
    )
    predicts_category, predicts_family = (
        values >= threshold if threshold is not None else np.zeros(len(values), dtype=bool)
        for values, threshold in (
            (confidence, policy.category_threshold),
            (family_confidence, policy.family_threshold),
        )
    )
    return predicts_category, predicts_family & ~predicts_category


def summarise(
    val: tuple[LogProbabilities, ClassIndices],
    test: tuple[LogProbabilities, ClassIndices],
    wanted_risks: Sequence[float],
    labels: Labels,
    product_ids: Sequence[str],
) -> dict[str, Any]:
    """Return the metrics of back-off on test, with thresholds chosen on val.

    accuracy, family_accuracy: of the most likely category and of the most likely family; family_of_category: accuracy
    of the most likely category's family; policies: per target risk the thresholds (null: none qualifies on val), the
    shares of images with a predicted category, a predicted family and neither, and the accuracies; risk_interval:
    the 95 % interval of the risk over products. product_ids: of the images of test.
    """
    table, truths = test
    return {
        "accuracy": float(top1(table, truths)[1].mean()),
        "family_accuracy": float(top1(family_table(table, labels), families_of(truths, labels))[1].mean()),
        "family_of_category": float((families_of(table.argmax(axis=1), labels) == families_of(truths, labels)).mean()),
        "policies": [
            {"wanted_risk": risk, **_judged(choose(*val, risk, labels), table, truths, labels, product_ids)}
            for risk in wanted_risks
        ],
    }


def _judged(
    policy: Policy, table: LogProbabilities, truths: ClassIndices, labels: Labels, product_ids: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    predicts_category, predicts_family = apply(policy, table, labels)
    right = top1(table, truths)[1]
    family_right = top1(family_table(table, labels), families_of(truths, labels))[1]
    answered = predicts_category | predicts_family
    wrong = ((predicts_category & ~right) | (predicts_family & ~family_right))[answered]
    return {
        "category_threshold": policy.category_threshold,
        "family_threshold": policy.family_threshold,
        "share_category": float(predicts_category.mean()),
        "share_family": float(predicts_family.mean()),
        "share_unanswered": float(1 - answered.mean()),
        "accuracy_category": float(right[predicts_category].mean()) if predicts_category.any() else None,
        "accuracy_family": float(family_right[predicts_family].mean()) if predicts_family.any() else None,
        "risk": float(wrong.mean()) if len(wrong) else None,
        "risk_interval": intervals.image_share_interval(wrong, np.asarray(product_ids)[answered].tolist()),
    }
