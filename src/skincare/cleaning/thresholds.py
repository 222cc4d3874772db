"""Evaluation of a check's threshold on marked images, and the proposal of a better threshold.

Precision: the share of rejected images that are marked reject; recall: the share of images marked reject that are
rejected; kept good: the share of images marked keep that are kept. All three hold for the marked images only, which lie
around a threshold: images far from it are rarely in doubt. Intervals resample products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from skincare.evaluation.intervals import draw_products, share_interval

# With fewer, the interval of a share is wider than 50 points.
LEAST_OF_EACH: Final = 10
_N_RESAMPLES: Final = 1000

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Marked:
    """An image: its value of a check and whether it is marked as good."""

    value: float
    is_good: bool
    product_id: str


@dataclass(frozen=True)
class AtThreshold:
    """Result of a threshold on the marked images; shares with 95 % intervals, None where undefined."""

    threshold: float
    n_rejected: int
    precision: float | None
    precision_interval: Interval | None
    recall: float | None
    recall_interval: Interval | None
    kept_good: float | None
    kept_good_interval: Interval | None
    balanced_accuracy: float | None


@dataclass(frozen=True)
class Proposal:
    """The threshold that a criterion selects, with its 95 % interval from low to high."""

    threshold: float
    low: float
    high: float


def at_threshold(marks: Sequence[Marked], threshold: float, *, is_least: bool) -> AtThreshold:
    """Evaluate a threshold, the minimum or the maximum that passes, on marked images."""
    ids = sorted({one.product_id for one in marks})
    place = {product_id: i for i, product_id in enumerate(ids)}
    counts = np.zeros((len(ids), 2, 2))
    for one in marks:
        is_rejected = one.value < threshold if is_least else one.value > threshold
        counts[place[one.product_id], int(is_rejected), int(one.is_good)] += 1
    draws = draw_products(len(ids), seed=0, n_resamples=_N_RESAMPLES)
    rejected, bad, good = counts[:, 1].sum(axis=1), counts[:, :, 0].sum(axis=1), counts[:, :, 1].sum(axis=1)
    caught, kept = counts[:, 1, 0], counts[:, 0, 1]
    precision, recall, kept_good = (_share(*pair) for pair in ((caught, rejected), (caught, bad), (kept, good)))
    return AtThreshold(
        threshold, int(rejected.sum()),
        precision, share_interval(caught, rejected, draws),
        recall, share_interval(caught, bad, draws),
        kept_good, share_interval(kept, good, draws),
        None if recall is None or kept_good is None else (recall + kept_good) / 2,
    )  # fmt: skip


def why_no_proposal(marks: Sequence[Marked]) -> str:
    """Return why there are too few marks to propose a threshold; empty if there are enough."""
    n_good = sum(one.is_good for one in marks)
    n_bad = len(marks) - n_good
    if min(n_good, n_bad) >= LEAST_OF_EACH:
        return ""
    lacking = "one-sided" if not n_good or not n_bad else "too few"
    return f"the marks are {lacking}: {n_good} keep and {n_bad} reject, at least {LEAST_OF_EACH} of each are needed"


def propose(marks: Sequence[Marked], threshold: float, *, is_least: bool, keep_good: float | None = None) -> Proposal:
    """Return the threshold of the best balanced accuracy or, with `keep_good`, the strictest that keeps that share.

    Of equally good thresholds, the one nearest to the present threshold is returned. Requires marks of both kinds, see
    `why_no_proposal`.
    """
    sign = 1.0 if is_least else -1.0
    values = sign * np.array([one.value for one in marks])
    is_good = np.array([one.is_good for one in marks])
    # All thresholds between two neighbouring values are equivalent.
    distinct = np.unique(np.append(values, sign * threshold))
    candidates = np.append((distinct[1:] + distinct[:-1]) / 2, sign * threshold)
    ids = sorted({one.product_id for one in marks})
    product = np.array([ids.index(one.product_id) for one in marks])
    is_rejected = values[:, None] < candidates[None]

    def best(weights: Floats) -> float:
        bad, good = weights * ~is_good, weights * is_good
        recall = bad @ is_rejected / max(bad.sum(), 1e-9)
        kept = good @ ~is_rejected / max(good.sum(), 1e-9)
        merit = recall + kept if keep_good is None else np.where(kept >= keep_good, candidates, -np.inf)
        top = candidates[merit >= merit.max() - 1e-9]
        return sign * float(top[np.abs(top - sign * threshold).argmin()])

    draws = draw_products(len(ids), seed=0, n_resamples=_N_RESAMPLES)[:, product]
    has_both = ((draws @ is_good) > 0) & ((draws @ ~is_good) > 0)
    low, high = np.quantile([best(weights) for weights in draws[has_both]], (0.025, 0.975))
    return Proposal(best(np.ones(len(marks))), float(low), float(high))


def _share(part: Floats, whole: Floats) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None
