"""Metrics of predictions: predictions in, scores with intervals out.

A prediction without a label counts as wrong in accuracy and recall, and in no category's precision. Macro means are
over the categories of the images (in a bootstrap sample: of its images), not over those that are only predicted.
Intervals resample products, not images: predictions for images of one product are correlated, so that 200 images of
80 products carry little more information than 80.
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


class LabelledPrediction(Protocol):
    """What a comparison needs of an answer; a Prediction has it."""

    @property
    def image_id(self) -> str:
        """Return the image's id."""

    @property
    def product_id(self) -> str:
        """Return the id of the product that it shows."""

    @property
    def truth(self) -> str:
        """Return its category."""

    @property
    def category(self) -> str | None:
        """Return the category that was answered; None for no category."""


@dataclass(frozen=True)
class CategoryScore:
    """One category; precision, recall and f1 are 0 where nothing defines them, their intervals then None."""

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

    *_low, *_high: 95 % interval by a bootstrap over products; coverage: share of answers that name a category;
    selective_accuracy: accuracy among those; parent_accuracy: share in the right family of categories;
    hierarchical_distance: mean over answers that name a category, 0 for the right one, 1 for another of its family, 2
    for another family; errors_in_family: the share of those wrong that stay in the family (None: none is wrong);
    categories: all labels (or the merged ones), in their order; confusion: a row of counts per true category, the last
    column no category.
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

    Categories that `merged` puts into one group count as one, except for what concerns families.
    Raises StageError when there are no predictions.
    """
    if not predictions:
        raise StageError("There are no predictions to score")
    names = merging.names(merged, labels)
    counts = confusion_by_product(merging.merge(predictions, merged, labels), names)
    draws = intervals.draw_products(len(counts), seed, n_resamples)
    confusion = counts.sum(axis=0)
    precision, recall, f1 = _per_category(confusion)
    support = confusion.sum(axis=1)
    weights, seen = support / support.sum(), support > 0
    return Scores(
        n=len(predictions),
        n_products=len(counts),
        **_overall(counts, draws),
        **_families(confusion_by_product(predictions, labels.names), draws, labels),
        precision_weighted=float(precision @ weights),
        recall_weighted=float(recall @ weights),
        f1_weighted=float(f1 @ weights),
        precision_macro=float(precision[seen].mean()),
        recall_macro=float(recall[seen].mean()),
        categories=tuple(_category_score(i, name, counts, draws) for i, name in enumerate(names)),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        statuses=dict(sorted(Counter(one.status for one in predictions).items())),
    )


def confusion_by_product(predictions: Sequence[LabelledPrediction], names: Sequence[str]) -> Floats:
    """Return (products, k, k + 1) counts of truth x answer, products sorted by id; the last column is no category."""
    products = {product_id: i for i, product_id in enumerate(sorted({one.product_id for one in predictions}))}
    place: dict[str | None, int] = {**{name: i for i, name in enumerate(names)}, None: len(names)}
    counts = np.zeros((len(products), len(names), len(names) + 1))
    for one in predictions:
        counts[products[one.product_id], place[one.truth], place[one.category]] += 1
    return counts


def macro_f1(confusions: Floats) -> Floats:
    """Return the macro F1 of (..., k, k + 1) counts, over the categories that each shows."""
    shown = confusions.sum(axis=-1) > 0
    f1 = _per_category(confusions)[2]
    return (f1 * shown).sum(axis=-1) / shown.sum(axis=-1)


def to_json(result: Any) -> dict[str, Any]:
    """Return a dataclass of scores as plain JSON types."""
    return asdict(result)


def scores_from_json(value: Mapping[str, Any]) -> Scores:
    """Return what `to_json` was given; StageError when it cannot be."""
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


def _overall(counts: Floats, draws: Floats) -> dict[str, float]:
    """Return what every answer has a part in, each with its interval."""
    n, n_answered = counts.sum(axis=(1, 2)), counts[:, :, :-1].sum(axis=(1, 2))
    n_right = np.trace(counts, axis1=1, axis2=2)
    f1 = float(macro_f1(counts.sum(axis=0)))
    drawn_f1 = macro_f1(np.tensordot(draws, counts, axes=1))
    f1_low, f1_high = intervals.interval_of_draws(f1, drawn_f1, len(counts))
    return {
        **_share("accuracy", n_right, n, draws),
        **_share("coverage", n_answered, n, draws),
        **_share("selective_accuracy", n_right, n_answered, draws),
        "f1_macro": f1,
        "f1_macro_low": f1_low,
        "f1_macro_high": f1_high,
    }


def _families(counts: Floats, draws: Floats, labels: Labels) -> dict[str, Any]:
    """Return how far wrong answers go, for (products, k, k + 1) counts."""
    of = [labels.family_of(name) for name in labels.names]
    is_family = np.array([[one == other for other in of] for one in of])
    answered = counts[:, :, :-1]
    n_in_family = (answered * is_family).sum(axis=(1, 2))
    n_right, n_answered = np.trace(answered, axis1=1, axis2=2).sum(), answered.sum()
    n_near, n_wrong = n_in_family.sum() - n_right, n_answered - n_right
    return {
        **_share("parent_accuracy", n_in_family, counts.sum(axis=(1, 2)), draws),
        "hierarchical_distance": float((2 * n_wrong - n_near) / max(n_answered, 1)),
        "errors_in_family": float(n_near / n_wrong) if n_wrong else None,
    }


def _share(name: str, hits: Floats, among: Floats, draws: Floats) -> dict[str, float]:
    """Return a share and its interval; 0, and nothing known, where there is nothing to share."""
    low, high = intervals.share_interval(hits, among, draws) or (0.0, 1.0)
    return {name: float(hits.sum() / max(among.sum(), 1)), f"{name}_low": low, f"{name}_high": high}


def _category_score(place: int, name: str, counts: Floats, draws: Floats) -> CategoryScore:
    precision, recall, f1 = _per_category(counts.sum(axis=0))
    right, shown = counts[:, place, place], counts[:, place].sum(axis=1)
    answered = counts[:, :, place].sum(axis=1)
    # Of the images that are of the category or taken for it, the right ones: F1 rises with that share alone.
    overlap = intervals.share_interval(right, shown + answered - right, draws)
    return CategoryScore(
        category=name,
        n=int(shown.sum()),
        n_products=int(np.count_nonzero(shown)),
        precision=float(precision[place]),
        recall=float(recall[place]),
        f1=float(f1[place]),
        n_unknown=int(counts[:, place, -1].sum()),
        precision_interval=intervals.share_interval(right, answered, draws),
        recall_interval=intervals.share_interval(right, shown, draws),
        f1_interval=(2 * overlap[0] / (1 + overlap[0]), 2 * overlap[1] / (1 + overlap[1])) if overlap else None,
    )


def _category_from_json(value: Mapping[str, Any]) -> CategoryScore:
    ends = {key: tuple(both) if both else None for key, both in value.items() if key.endswith("_interval")}
    return CategoryScore(**{**value, **ends})


def _per_category(confusions: Floats) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and F1, (..., k) each, of (..., k, k + 1) counts; 0 where nothing defines them."""
    right = np.diagonal(confusions, axis1=-2, axis2=-1)
    answered, support = confusions[..., :-1].sum(axis=-2), confusions.sum(axis=-1)
    return (
        right / np.maximum(answered, 1),
        right / np.maximum(support, 1),
        2 * right / np.maximum(answered + support, 1),
    )
