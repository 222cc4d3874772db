"""Metrics of predictions: predictions in, scores with intervals out.

A prediction without a label counts as wrong in accuracy and recall, and in no category's precision. Macro means are
over the true categories of the images (in a bootstrap sample: of its images). Intervals resample products, not images:
predictions for images of one product are correlated, so 200 images of 80 products are hardly more informative than 80.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from skincare.errors import StageError
from skincare.evaluation import intervals, merging
from skincare.inference.predictions import Prediction
from skincare.labels import Labels

Floats = npt.NDArray[np.float64]
# Hits and cases of each product, (products,) each: the share is sum(hits) / sum(cases).
Share = tuple[Floats, Floats]


class LabelledPrediction(Protocol):
    """The attributes of a prediction that comparisons use."""

    @property
    def image_id(self) -> str:
        """Return the image's id."""

    @property
    def product_id(self) -> str:
        """Return the id of the product in the image."""

    @property
    def truth(self) -> str:
        """Return the true category."""

    @property
    def category(self) -> str | None:
        """Return the predicted category; None for none."""


@dataclass(frozen=True)
class CategoryScore:
    """Scores of one category; precision, recall and f1 are 0 and their intervals None where they are undefined."""

    category: str
    n: int
    n_products: int
    precision: float
    recall: float
    f1: float
    n_unknown: int
    precision_interval: tuple[float, float] | None
    recall_interval: tuple[float, float] | None
    f1_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Scores:
    """All scores of a set of predictions, as shares.

    *_low, *_high: 95 % interval by a bootstrap over products; coverage: share of images with a predicted category;
    selective_accuracy: accuracy of those; parent_accuracy: share with the true family of categories;
    hierarchical_distance: mean over predicted categories of 0 for the true one, 1 for another of its family, 2 for
    another family; errors_in_family: share of wrong categories in the true family (None: none is wrong); categories:
    all labels (or the merged ones), in their order; confusion: a row of counts per true category, the last column no
    category.
    """

    n: int
    n_products: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    coverage: float
    coverage_low: float
    coverage_high: float
    selective_accuracy: float
    selective_accuracy_low: float
    selective_accuracy_high: float
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    f1_macro_low: float
    f1_macro_high: float
    parent_accuracy: float
    parent_accuracy_low: float
    parent_accuracy_high: float
    hierarchical_distance: float
    errors_in_family: float | None
    categories: tuple[CategoryScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    statuses: dict[str, int]


def score(
    predictions: Sequence[Prediction], labels: Labels, *, merged: Sequence[merging.Group] = (), seed: int = 0,
    n_resamples: int = 2000,
) -> Scores:  # fmt: skip
    """Score predictions; their order does not matter.

    merged: groups of categories that count as one, except in the scores of families.
    Raises StageError when there are no predictions.
    """
    if not predictions:
        raise StageError("There are no predictions to score")
    names = merging.names(merged, labels)
    counts = confusion_by_product(merging.merge(predictions, merged, labels), names)
    family_counts = confusion_by_product(predictions, labels.names)
    shares = _shares(counts, names) | _family_shares(family_counts, labels)
    # All is counted before the bootstrap, so that every interval is of the same samples.
    draws = intervals.draw_products(len(counts), seed, n_resamples)
    drawn_f1 = macro_f1(np.tensordot(draws, counts, axes=1))
    found = intervals.share_intervals(shares, draws)
    confusion = counts.sum(axis=0)
    f1 = float(macro_f1(confusion))
    f1_low, f1_high = intervals.interval_of_draws(f1, drawn_f1, len(counts))
    overall = {name: interval or (0.0, 1.0) for (name, category), interval in found.items() if not category}
    return Scores(
        n=len(predictions),
        n_products=len(counts),
        **{name: _value(*shares[name, ""]) for name in overall},
        **{f"{name}_{end}": both[i] for name, both in overall.items() for i, end in enumerate(("low", "high"))},
        **_weighted(confusion),
        f1_macro=f1,
        f1_macro_low=f1_low,
        f1_macro_high=f1_high,
        **_family_errors(family_counts.sum(axis=0), labels),
        categories=tuple(_category_score(i, name, counts, found) for i, name in enumerate(names)),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        statuses=dict(sorted(Counter(one.status for one in predictions).items())),
    )


def confusion_by_product(predictions: Sequence[LabelledPrediction], names: Sequence[str]) -> Floats:
    """Return (products, k, k + 1) counts, true x predicted, products sorted by id; the last column is no category."""
    products = {product_id: i for i, product_id in enumerate(sorted({one.product_id for one in predictions}))}
    place: dict[str | None, int] = {**{name: i for i, name in enumerate(names)}, None: len(names)}
    counts = np.zeros((len(products), len(names), len(names) + 1))
    for one in predictions:
        counts[products[one.product_id], place[one.truth], place[one.category]] += 1
    return counts


def macro_f1(confusions: Floats) -> Floats:
    """Return the macro F1 of (..., k, k + 1) counts, over the categories with images."""
    shown = confusions.sum(axis=-1) > 0
    f1 = _per_category(confusions)[2]
    return (f1 * shown).sum(axis=-1) / shown.sum(axis=-1)


def to_json(result: Any) -> dict[str, Any]:
    """Return a dataclass of scores as plain JSON types."""
    return asdict(result)


def scores_from_json(value: Mapping[str, Any]) -> Scores:
    """Return the scores that `to_json` wrote; raises StageError for other content."""
    try:
        return Scores(
            **{
                **value,
                "categories": tuple(_category_from_json(one) for one in value["categories"]),
                "confusion": tuple(tuple(row) for row in value["confusion"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise StageError(f"not the metrics of this version ({error}); run the stage again") from error


def headline(scores: Scores) -> str:
    """Return the scores in one line."""
    return (
        f"{scores.accuracy:.1%} accuracy ({scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}, n = {scores.n} "
        f"images of {scores.n_products} products), macro-F1 {scores.f1_macro:.2f}, coverage {scores.coverage:.1%}"
    )


def _shares(counts: Floats, names: Sequence[str]) -> dict[tuple[str, str], Share]:
    """Return (metric, category) -> its share; category "": of all images."""
    n, n_answered = counts.sum(axis=(1, 2)), counts[:, :, :-1].sum(axis=(1, 2))
    n_right = np.trace(counts, axis1=1, axis2=2)
    shares: dict[tuple[str, str], Share] = {
        ("accuracy", ""): (n_right, n),
        ("coverage", ""): (n_answered, n),
        ("selective_accuracy", ""): (n_right, n_answered),
    }
    for place, name in enumerate(names):
        right, true, predicted = counts[:, place, place], counts[:, place].sum(axis=1), counts[:, :, place].sum(axis=1)
        shares["precision", name] = right, predicted
        shares["recall", name] = right, true
        # The Jaccard index J: F1 = 2 J / (1 + J), which rises with J.
        shares["jaccard", name] = right, true + predicted - right
    return shares


def _family_shares(counts: Floats, labels: Labels) -> dict[tuple[str, str], Share]:
    n_in_family = (counts[:, :, :-1] * _is_same_family(labels)).sum(axis=(1, 2))
    return {("parent_accuracy", ""): (n_in_family, counts.sum(axis=(1, 2)))}


def _is_same_family(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return (k, k) whether two labels are in the same family."""
    families = [labels.family_of(name) for name in labels.names]
    return np.array([[one == other for other in families] for one in families])


def _family_errors(confusion: Floats, labels: Labels) -> dict[str, Any]:
    """Return the mean distance and the share of errors within the family of a (k, k + 1) confusion matrix."""
    answered = confusion[:, :-1]
    n_right, n_answered = np.trace(answered), answered.sum()
    n_near, n_wrong = (answered * _is_same_family(labels)).sum() - n_right, n_answered - n_right
    return {
        "hierarchical_distance": float((2 * n_wrong - n_near) / max(n_answered, 1)),
        "errors_in_family": float(n_near / n_wrong) if n_wrong else None,
    }


def _weighted(confusion: Floats) -> dict[str, float]:
    """Return precision, recall and F1 weighted by support, and the macro means of the first two."""
    precision, recall, f1 = _per_category(confusion)
    support = confusion.sum(axis=1)
    weights, seen = support / support.sum(), support > 0
    return {
        "precision_weighted": float(precision @ weights),
        "recall_weighted": float(recall @ weights),
        "f1_weighted": float(f1 @ weights),
        "precision_macro": float(precision[seen].mean()),
        "recall_macro": float(recall[seen].mean()),
    }


def _value(hits: Floats, among: Floats) -> float:
    return float(hits.sum() / max(among.sum(), 1))


def _category_score(
    place: int, name: str, counts: Floats, found: Mapping[tuple[str, str], tuple[float, float] | None]
) -> CategoryScore:
    precision, recall, f1 = (float(values[place]) for values in _per_category(counts.sum(axis=0)))
    n_by_product = counts[:, place].sum(axis=1)
    jaccard = found["jaccard", name]
    return CategoryScore(
        category=name,
        n=int(n_by_product.sum()),
        n_products=int(np.count_nonzero(n_by_product)),
        precision=precision,
        recall=recall,
        f1=f1,
        n_unknown=int(counts[:, place, -1].sum()),
        precision_interval=found["precision", name],
        recall_interval=found["recall", name],
        f1_interval=(2 * jaccard[0] / (1 + jaccard[0]), 2 * jaccard[1] / (1 + jaccard[1])) if jaccard else None,
    )


def _category_from_json(value: Mapping[str, Any]) -> CategoryScore:
    ends = {key: tuple(both) if both else None for key, both in value.items() if key.endswith("_interval")}
    return CategoryScore(**{**value, **ends})


def _per_category(confusions: Floats) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1, (..., k) each, of (..., k, k + 1) counts; 0 where they are undefined."""
    right = np.diagonal(confusions, axis1=-2, axis2=-1)
    answered, support = confusions[..., :-1].sum(axis=-2), confusions.sum(axis=-1)
    return (
        right / np.maximum(answered, 1),
        right / np.maximum(support, 1),
        2 * right / np.maximum(answered + support, 1),
    )
