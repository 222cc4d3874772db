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
    """Return the places of families of places of labels."""
    return _family_places(labels)[truths]


def _family_places(labels: Labels) -> ClassIndices:
    """Return (n_labels,) the place of each label's family."""
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
    """Return, per image, whether the category is named and whether the family is; neither means no answer."""
    surest, surest_family = (
        np.exp(one.max(axis=1)) for one in (log_probabilities, family_table(log_probabilities, labels))
    )
    names_category, names_family = (
        confidence >= threshold if threshold is not None else np.zeros(len(confidence), dtype=bool)
        for confidence, threshold in (
            (surest, policy.category_threshold),
            (surest_family, policy.family_threshold),
        )
    )
    return names_category, names_family & ~names_category


def summarise(
    val: tuple[LogProbabilities, ClassIndices],
    test: tuple[LogProbabilities, ClassIndices],
    wanted_risks: Sequence[float],
    labels: Labels,
) -> dict[str, Any]:
    """Return what families bring on test.

    accuracy, family_accuracy: of the likeliest category and of the family with the largest sum; family_of_category: how
    often the family of the likeliest category is right; policies: per wanted risk the thresholds (null: val vouches for
    none), the shares of images answered by category, by family and not at all, and what of each is right.
    """
    table, truths = test
    return {
        "accuracy": float(top1(table, truths)[1].mean()),
        "family_accuracy": float(top1(family_table(table, labels), families_of(truths, labels))[1].mean()),
        "family_of_category": float((families_of(table.argmax(axis=1), labels) == families_of(truths, labels)).mean()),
        "policies": [
            {"wanted_risk": risk, **_judged(choose(*val, risk, labels), table, truths, labels)} for risk in wanted_risks
        ],
    }


def _judged(policy: Policy, table: LogProbabilities, truths: ClassIndices, labels: Labels) -> dict[str, Any]:
    names_category, names_family = apply(policy, table, labels)
    right = top1(table, truths)[1]
    family_right = top1(family_table(table, labels), families_of(truths, labels))[1]
    n_answered = int((names_category | names_family).sum())
    n_wrong = int((names_category & ~right).sum() + (names_family & ~family_right).sum())
    return {
        "category_threshold": policy.category_threshold,
        "family_threshold": policy.family_threshold,
        "share_category": float(names_category.mean()),
        "share_family": float(names_family.mean()),
        "share_unanswered": 1 - n_answered / len(truths),
        "accuracy_category": float(right[names_category].mean()) if names_category.any() else None,
        "accuracy_family": float(family_right[names_family].mean()) if names_family.any() else None,
        "risk": n_wrong / n_answered if n_answered else None,
        "risk_interval": intervals.wilson_interval(n_wrong, n_answered) if n_answered else None,
    }
