"""What a limit is worth on images that somebody has marked, and which other limit would be better.

A check rejects what lies beyond its limit. Precision: of what it rejects, the share marked reject; recall: of what is
marked reject, the share it rejects; kept good: of what is marked keep, the share it keeps. All of it is about the
marked images, which lie around a limit: far from it nearly all images are clear. Intervals draw products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from skincare.evaluation.intervals import draw_products, share_interval

# Below it an interval of a share is wider than half of all there is.
LEAST_OF_EACH: Final = 10
_N_RESAMPLES: Final = 1000

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Marked:
    """An image's value of a check and what somebody says about the image."""

    value: float
    is_good: bool
    product_id: str


@dataclass(frozen=True)
class AtThreshold:
    """What a limit does to the marked images; shares with 95 % intervals, None where nothing defines them."""

    limit: float
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
    """The limit that a criterion picks; 95 % of redrawn marks pick one between low and high."""

    limit: float
    low: float
    high: float


def at_threshold(marks: Sequence[Marked], limit: float, *, is_least: bool) -> AtThreshold:
    """Return what a limit, the least value that passes or the most, does to marked images."""
    ids = sorted({one.product_id for one in marks})
    place = {product_id: i for i, product_id in enumerate(ids)}
    counts = np.zeros((len(ids), 2, 2))
    for one in marks:
        is_rejected = one.value < limit if is_least else one.value > limit
        counts[place[one.product_id], int(is_rejected), int(one.is_good)] += 1
    draws = draw_products(len(ids), seed=0, n_resamples=_N_RESAMPLES)
    rejected, bad, good = counts[:, 1].sum(axis=1), counts[:, :, 0].sum(axis=1), counts[:, :, 1].sum(axis=1)
    caught, kept = counts[:, 1, 0], counts[:, 0, 1]
    precision, recall, kept_good = (_share(*pair) for pair in ((caught, rejected), (caught, bad), (kept, good)))
    return AtThreshold(
        limit, int(rejected.sum()),
        precision, share_interval(caught, rejected, draws),
        recall, share_interval(caught, bad, draws),
        kept_good, share_interval(kept, good, draws),
        None if recall is None or kept_good is None else (recall + kept_good) / 2,
    )  # fmt: skip


def why_no_proposal(marks: Sequence[Marked]) -> str:
    """Return why the marks are too few to propose a limit; empty where they are enough."""
    n_good = sum(one.is_good for one in marks)
    n_bad = len(marks) - n_good
    if min(n_good, n_bad) >= LEAST_OF_EACH:
        return ""
    lacking = "one-sided" if not n_good or not n_bad else "too few"
    return f"the marks are {lacking}: {n_good} keep and {n_bad} reject, at least {LEAST_OF_EACH} of each are needed"


def propose(marks: Sequence[Marked], limit: float, *, is_least: bool, keep_good: float | None = None) -> Proposal:
    """Return the limit of the best balanced accuracy or, with `keep_good`, the strictest that keeps so much.

    Of equally good limits the one nearest to the present one. Needs marks of both kinds, see `why_no_proposal`.
    """
    sign = 1.0 if is_least else -1.0
    values = sign * np.array([one.value for one in marks])
    is_good = np.array([one.is_good for one in marks])
    # Between two neighbours every limit does the same.
    distinct = np.unique(np.append(values, sign * limit))
    candidates = np.append((distinct[1:] + distinct[:-1]) / 2, sign * limit)
    ids = sorted({one.product_id for one in marks})
    product = np.array([ids.index(one.product_id) for one in marks])
    is_rejected = values[:, None] < candidates[None]

    def best(weights: Floats) -> float:
        bad, good = weights * ~is_good, weights * is_good
        recall = bad @ is_rejected / max(bad.sum(), 1e-9)
        kept = good @ ~is_rejected / max(good.sum(), 1e-9)
        merit = recall + kept if keep_good is None else np.where(kept >= keep_good, candidates, -np.inf)
        top = candidates[merit >= merit.max() - 1e-9]
        return sign * float(top[np.abs(top - sign * limit).argmin()])

    draws = draw_products(len(ids), seed=0, n_resamples=_N_RESAMPLES)[:, product]
    has_both = ((draws @ is_good) > 0) & ((draws @ ~is_good) > 0)
    low, high = np.quantile([best(weights) for weights in draws[has_both]], (0.025, 0.975))
    return Proposal(best(np.ones(len(marks))), float(low), float(high))


def _share(part: Floats, whole: Floats) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None
