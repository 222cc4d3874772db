"""How good the answers are: predictions in, scores with intervals out.

An answer that names no category is wrong for accuracy and recall, and in no category's precision. Macro means are over
the categories that the pictures show. Intervals draw products, not pictures: the photos of one product are answered
alike, so that 200 pictures of 80 products tell little more than 80.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from skincare.categories import CATEGORIES, parent_of
from skincare.errors import StageError
from skincare.predictions import Prediction

_Z_95: Final = 1.959964
_Z_POWER_80: Final = 0.841621


@dataclass(frozen=True)
class CategoryScore:
    """One category; precision, recall and f1 are 0 where nothing defines them."""

    category: str
    n: int
    n_products: int
    precision: float
    recall: float
    f1: float
    n_unknown: int


@dataclass(frozen=True)
class Scores:
    """All scores of a set of predictions, as shares.

    accuracy_low, accuracy_high: 95 % interval by a bootstrap over products; coverage: share of answers that name a
    category; selective_accuracy: accuracy among those; parent_accuracy: share in the right family of categories;
    categories: all 14, in their order; confusion: (14, 15) counts, rows are the truth, the last column no category.
    """

    n: int
    n_products: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    coverage: float
    selective_accuracy: float
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    parent_accuracy: float
    categories: tuple[CategoryScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    statuses: dict[str, int]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same pictures; difference is after - before, with a 95 % interval over products.

    mcnemar_p: exact two-sided p-value that the pictures which only one of them got right are split evenly;
    smallest_detectable_difference: what a set of this size finds with 80 % power at the 5 % level.
    """

    n: int
    n_products: int
    accuracy_before: float
    accuracy_after: float
    difference: float
    difference_low: float
    difference_high: float
    n_only_before_right: int
    n_only_after_right: int
    mcnemar_p: float
    smallest_detectable_difference: float


def score(predictions: Sequence[Prediction], *, seed: int = 0, n_resamples: int = 2000) -> Scores:
    """Score predictions; their order does not matter. Raises StageError when there are none."""
    if not predictions:
        raise StageError("There are no predictions to score")
    confusion = _confusion(predictions)
    right = [one.category == one.truth for one in predictions]
    low, high = accuracy_interval(right, [one.product_id for one in predictions], seed, n_resamples)
    n_answered = sum(one.category is not None for one in predictions)
    precision, recall, f1 = _per_category(confusion)
    support = confusion.sum(axis=1)
    seen = support > 0
    weights = support / support.sum()
    products = _products_by_category(predictions)
    return Scores(
        n=len(predictions),
        n_products=len({one.product_id for one in predictions}),
        accuracy=float(np.mean(right)),
        accuracy_low=low,
        accuracy_high=high,
        coverage=n_answered / len(predictions),
        selective_accuracy=sum(right) / n_answered if n_answered else 0.0,
        precision_weighted=float(precision @ weights),
        recall_weighted=float(recall @ weights),
        f1_weighted=float(f1 @ weights),
        precision_macro=float(precision[seen].mean()),
        recall_macro=float(recall[seen].mean()),
        f1_macro=float(f1[seen].mean()),
        parent_accuracy=float(np.mean([_is_right_family(one) for one in predictions])),
        categories=tuple(
            CategoryScore(
                name,
                int(support[i]),
                len(products[name]),
                float(precision[i]),
                float(recall[i]),
                float(f1[i]),
                int(confusion[i, -1]),
            )
            for i, name in enumerate(CATEGORIES)
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        statuses=dict(sorted(Counter(one.status for one in predictions).items())),
    )


def compare(
    before: Sequence[Prediction], after: Sequence[Prediction], *, seed: int = 0, n_resamples: int = 2000
) -> Comparison:
    """Compare two models on the same pictures; raises StageError when the pictures or their truths differ."""
    first, second = ({one.image_id: one for one in part} for part in (before, after))
    ids = sorted(first)
    if not ids or ids != sorted(second) or any(first[i].truth != second[i].truth for i in ids):
        raise StageError(
            "Only predictions of the same pictures can be compared; run zero_shot.py and finetune.py again"
        )
    was_right = np.array([first[i].category == first[i].truth for i in ids])
    is_right = np.array([second[i].category == second[i].truth for i in ids])
    gained, lost = int((is_right & ~was_right).sum()), int((was_right & ~is_right).sum())
    change = is_right.astype(float) - was_right.astype(float)
    product_ids = [first[i].product_id for i in ids]
    low, high = clustered_interval(change, product_ids, seed, n_resamples)
    return Comparison(
        n=len(ids),
        n_products=len(set(product_ids)),
        accuracy_before=float(was_right.mean()),
        accuracy_after=float(is_right.mean()),
        difference=float(change.mean()),
        difference_low=low,
        difference_high=high,
        n_only_before_right=lost,
        n_only_after_right=gained,
        mcnemar_p=float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        smallest_detectable_difference=smallest_detectable_difference(len(ids), (gained + lost) / len(ids)),
    )


def clustered_interval(
    values: Sequence[float] | npt.NDArray[Any], clusters: Sequence[str], seed: int, n_resamples: int
) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` when whole clusters are drawn with replacement."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster][0] += float(value)
        sums[cluster][1] += 1
    # Sorted: the interval must not depend on the order of the predictions.
    totals = np.array([sums[cluster] for cluster in sorted(sums)])
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=n_resamples)
    drawn = times_drawn @ totals
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return float(low), float(high)


def accuracy_interval(
    right: Sequence[bool], products: Sequence[str], seed: int, n_resamples: int
) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, products drawn with replacement.

    Where all answers are right, or none is, drawing again teaches nothing: Wilson's interval, a product counting once.
    """
    if len(set(right)) == 1:
        n_products = len(set(products))
        return wilson_interval(n_products if right[0] else 0, n_products)
    return clustered_interval(right, products, seed, n_resamples)


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of independent pictures.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, z2 = n_right / n, _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def smallest_detectable_difference(n: int, discordant_share: float) -> float:
    """Return the paired difference of two accuracies that n pictures show with 80 % power at the two-sided 5 % level.

    Source: the normal approximation of McNemar's test, n = (z_a sqrt(p) + z_b sqrt(p - d^2))^2 / d^2 with p the share
    of pictures on which the two differ (R. J. Connor, Biometrics 43, 1987), solved for d.
    """
    p = discordant_share
    low, high = 0.0, 1.0
    for _ in range(60):
        d = (low + high) / 2
        needed = (_Z_95 * math.sqrt(p) + _Z_POWER_80 * math.sqrt(max(p - d * d, 0.0))) ** 2
        low, high = (d, high) if needed > n * d * d else (low, d)
    return high


def to_json(result: Scores | Comparison) -> dict[str, Any]:
    """Return plain JSON types."""
    return asdict(result)


def scores_from_json(value: Mapping[str, Any]) -> Scores:
    """Return what `to_json` was given; StageError when it cannot be."""
    try:
        return Scores(
            **{
                **value,
                "categories": tuple(CategoryScore(**one) for one in value["categories"]),
                "confusion": tuple(tuple(row) for row in value["confusion"]),
            }
        )
    except (KeyError, TypeError) as error:
        raise StageError(f"not the metrics of this version ({error}); run the stage again") from error


def headline(scores: Scores) -> str:
    """Return the scores in one line."""
    return (
        f"{scores.accuracy:.1%} accuracy ({scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}, n = {scores.n} "
        f"pictures of {scores.n_products} products), macro-F1 {scores.f1_macro:.2f}, coverage {scores.coverage:.1%}"
    )


def _confusion(predictions: Sequence[Prediction]) -> npt.NDArray[np.int64]:
    place = {name: i for i, name in enumerate(CATEGORIES)}
    confusion = np.zeros((len(CATEGORIES), len(CATEGORIES) + 1), dtype=np.int64)
    for one in predictions:
        confusion[place[one.truth], place[one.category] if one.category is not None else -1] += 1
    return confusion


def _per_category(confusion: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return precision, recall and F1, (14,) each."""
    right = np.diagonal(confusion).astype(float)
    answered, support = confusion[:, :-1].sum(axis=0), confusion.sum(axis=1)
    return (
        right / np.maximum(answered, 1),
        right / np.maximum(support, 1),
        2 * right / np.maximum(answered + support, 1),
    )


def _is_right_family(one: Prediction) -> bool:
    return one.category is not None and parent_of(one.category) == parent_of(one.truth)


def _products_by_category(predictions: Sequence[Prediction]) -> dict[str, set[str]]:
    products: dict[str, set[str]] = defaultdict(set)
    for one in predictions:
        products[one.truth].add(one.product_id)
    return products
